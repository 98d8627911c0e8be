"""Choose the tensors that are hashed where they lie, without a copy of their tiles, and hash them.

What is left of a tile after its full chunks is less than one chunk, and is copied.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from anh_jax.digest.block_cut import BlockCut, block_cut
from anh_jax.digest.kernels import BLOCK_BYTES, CHUNK_BLOCKS
from anh_jax.digest.leaves import (
    LeafBatch,
    LeafHash,
    LeafOperands,
    hash_last_leaves,
)
from anh_jax.digest.placement import Axes, Placement, PrimeMesh
from anh_jax.digest.tensor_cut import TensorCut
from anh_jax.digest.tile_words import element_words, tile_words

# What one launch reads at least: below, a copy costs less than the launch's own start and end,
# about 10 us (assumed, not measured), in which a GPU is not full.
LAUNCH_BYTES = 32 << 20
# Choosing among tensors is a branch before each block: of 16 it is 4 % of a block's instructions,
# of 64 it is 15 %, as compiled. More than 16 are one launch only where 16 would be a short one.
_FEW_TENSORS, _MOST_TENSORS = 16, 64
_LONG_BYTES = 256 << 20
# Types whose bytes in memory are those that are hashed, and which every kernel can load.
_DTYPES = frozenset(
    ("int8", "uint8", "int16", "uint16", "float16", "bfloat16", "int32", "uint32", "float32")
)


@dataclass(frozen=True, slots=True)
class InPlace:
    """Say how tensors that are cut alike are read where they lie.

    The first tile of a device begins at the sum, over pairs of `steps`, of the device's place
    along that axis of the mesh times that many blocks.
    """

    dtype: str
    cut: BlockCut
    steps: tuple[tuple[str, int], ...]


def in_place_batches(
    mesh: PrimeMesh, tensors: Sequence[TensorCut]
) -> list[tuple[InPlace, tuple[int, ...]]]:
    """Return the batches of tensors to read where they lie: how, and their indices."""
    alike: defaultdict[InPlace, list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        how = read_in_place(mesh, tensor)
        if how is not None:
            alike[how].append(index)
    batches: list[tuple[InPlace, tuple[int, ...]]] = []
    for how, members in alike.items():
        each = how.cut.tiles * how.cut.blocks * BLOCK_BYTES
        together = min(max(-(-_LONG_BYTES // each), _FEW_TENSORS), _MOST_TENSORS)
        launches = -(-len(members) // together)
        if len(members) * each < launches * LAUNCH_BYTES:
            continue
        edges = [number * len(members) // launches for number in range(launches + 1)]
        batches += [
            (how, tuple(members[first:end])) for first, end in zip(edges, edges[1:], strict=False)
        ]
    return batches


def arriving(placement: Placement) -> Axes:
    """Return the sharding in which a tensor reaches the program that reads it where it lies."""
    return placement.cut if placement.moves else placement.held


def read_in_place(mesh: PrimeMesh, tensor: TensorCut) -> InPlace | None:
    """Say how a tensor is read where it lies; None if its blocks are no pieces of its array."""
    header = tensor.header
    if header.dtype not in _DTYPES:
        return None
    axes, sizes = arriving(tensor.placement), mesh.sizes
    dims = [dim // part for dim, part in zip(header.dims, mesh.parts(axes), strict=True)]
    cut = block_cut(dims, tensor.tile, tensor.grid, header.itemsize)
    if cut is None:
        return None
    steps: list[tuple[str, int]] = []
    below = header.itemsize  # bytes from one index of an axis to the next
    for axis in reversed(range(len(dims))):
        extent = dims[axis]
        for name in tensor.placement.cut[axis][len(axes[axis]) :]:
            extent //= sizes[name]
            steps.append((name, extent * below // BLOCK_BYTES))
        below *= dims[axis]
    return InPlace(header.dtype, cut, tuple(steps))


def hash_in_place(
    leaf_hash: LeafHash,
    how: InPlace,
    batch: LeafBatch,
    tensors: Sequence[jax.Array],
    operands: LeafOperands,
) -> jax.Array:
    """Hash the leaves of a batch's tensors, as they lie on this device, to uint32[rows, 8]."""
    first = jnp.int32(0)
    for name, blocks in how.steps:
        first += lax.axis_index(name) * jnp.int32(blocks)
    chunks = leaf_hash.chunks
    assert chunks is not None and chunks.in_place is not None  # else no such batch is planned
    full = chunks.in_place(tensors, how.cut, first)
    rests = [_rest(each, how, first) for each in tensors] if batch.buckets else []
    return jnp.concatenate([full, *hash_last_leaves(leaf_hash, batch, rests, operands)])


def _rest(tensor: jax.Array, how: InPlace, first: jax.Array) -> jax.Array:
    """Copy what follows the full chunks of each tile: uint32[tiles, words]."""
    cut = how.cut
    tiles = np.arange(cut.tiles, dtype=np.int32)[:, None]
    blocks = np.arange(cut.chunks * CHUNK_BLOCKS, cut.blocks, dtype=np.int32)[None]
    places = first + cut.place(jnp.asarray(tiles), jnp.asarray(blocks))
    # XLA may take bfloat16 through float32, which changes some NaNs, but not float32 itself.
    bits = element_words(tensor, how.dtype) if tensor.dtype.itemsize == 2 else tensor
    rows = bits.reshape(-1, BLOCK_BYTES // bits.dtype.itemsize)
    rest = rows.at[places].get(mode="promise_in_bounds").reshape(cut.tiles, -1)
    return tile_words(rest, how.dtype, (1, rest.shape[1]))
