"""Say how a tensor is cut into tiles, and which of them each device hashes."""

from dataclasses import dataclass

from anh_jax.digest.placement import Placement, PrimeMesh
from attest.digest_tree import merge_axes, tile_dims
from attest.tensor_header import TensorHeader


@dataclass(frozen=True, slots=True)
class TensorCut:
    """Say how a tensor is cut: `tile` is a tile's shape, `grid` the tiles of one block.

    `local` merges of `axes` lie within a block; `subtrees` is the grid of what they leave there.
    """

    header: TensorHeader
    placement: Placement
    parts: tuple[int, ...]
    tile: tuple[int, ...]
    grid: tuple[int, ...]
    axes: tuple[int, ...]
    local: int
    subtrees: tuple[int, ...]


def cut_tensor(mesh: PrimeMesh, header: TensorHeader, placement: Placement) -> TensorCut:
    """Describe a tensor's cut; the axes of its placement may be more than those of its header."""
    rank = len(header.dims)
    parts = mesh.parts(placement.cut)[:rank]
    axes = merge_axes(header.grid)
    remaining, local = list(header.grid), 0
    while local < len(axes) and remaining[axes[local]] > parts[axes[local]]:
        remaining[axes[local]] //= 2
        local += 1
    return TensorCut(
        header=header,
        placement=placement,
        parts=parts,
        tile=tile_dims(header.dims, header.grid),
        grid=tuple(count // part for count, part in zip(header.grid, parts, strict=True)),
        axes=axes,
        local=local,
        subtrees=tuple(count // part for count, part in zip(remaining, parts, strict=True)),
    )
