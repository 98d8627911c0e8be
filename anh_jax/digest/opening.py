"""Open one tile of a digested pytree: a file that anyone can check against the state digest."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.hashes import BulkHashes, bulk_hashes, level_hash
from anh_jax.digest.merge import merge
from anh_jax.digest.shards import hold, whole
from anh_jax.digest.tiles import element_bytes, hash_tiles, tiled
from anh_jax.digest.tree import Leaf, read_tree
from anh_jax.errors import AnhError
from attest.digest_tree import (
    DigestLevel,
    Path,
    merge_axes,
    path_text,
    set_siblings,
    tensor_bytes,
    tile_dims,
)
from attest.errors import AttestError
from attest.opening import Opening


@dataclass(frozen=True, slots=True)
class _Climb:
    """Hold the root of a tensor's tiles and one tile's siblings below it, from the tile up."""

    top: bytes
    siblings: tuple[bytes, ...]


def open_tile(tree: object, digest: TreeDigest, *, path: Path, index: tuple[int, ...]) -> bytes:
    """Return the canonical JSON that leads from one tile of `tree` to `digest.root`.

    `index` counts tiles along each axis of the tensor at `path`; `attest.opening` verifies.

    Raises:
        AnhError: for an unknown path, a tile outside the grid, a tensor not held whole by this
            process, or a tree that is not the one digested.
    """
    try:
        return _opening(tree, digest, path, index).to_bytes()
    except AttestError as error:
        raise AnhError(f"opening: {error}") from error


def _opening(tree: object, digest: TreeDigest, path: Path, index: tuple[int, ...]) -> Opening:
    place, leaf = _find(tree, digest, path)
    header = leaf.header
    if len(index) != len(header.grid) or any(
        not 0 <= at < count for at, count in zip(index, header.grid, strict=True)
    ):
        raise AnhError(
            f"opening: {path_text(path)}: tile {list(index)} is outside {list(header.grid)}"
        )
    tile = tile_dims(header.dims, header.grid)
    hashes, hash_level = bulk_hashes(digest.alg), level_hash(digest.alg)
    array = _held(leaf)
    climb = _climb(hashes, hash_tiles(hashes, tiled(array, tile)), header.grid, index)
    material = tensor_bytes(leaf.header_bytes, climb.top)
    if hash_level(DigestLevel.TENSOR, material) != digest.tensors[place].root:
        raise AnhError(f"opening: {path_text(path)}: differs from what was digested")
    block = tuple(slice(at * size, (at + 1) * size) for at, size in zip(index, tile, strict=True))
    roots = [tensor.root for tensor in digest.tensors]
    return Opening(
        alg=digest.alg,
        header=header,
        index=index,
        tile=element_bytes(array[(*block, ...)]).tobytes(),
        siblings=climb.siblings,
        set_index=place,
        set_siblings=set_siblings(hash_level, roots, place),
        tensors=len(roots),
        structure=digest.structure,
        step=digest.step,
    )


def tile_root(tree: object, *, path: Path, alg: str) -> bytes:
    """Return the root of the tiles of one tensor of a tree, 32 bytes.

    Raises:
        AnhError: for an unknown path, or a tensor not held whole by this process.
    """
    leaf = next((leaf for leaf in read_tree(tree).leaves if leaf.header.path == path), None)
    if leaf is None:
        raise AnhError(f"opening: no tensor at {path_text(path)}")
    header = leaf.header
    hashes, tile = bulk_hashes(alg), tile_dims(header.dims, header.grid)
    tiles = hash_tiles(hashes, tiled(_held(leaf), tile))
    return _climb(hashes, tiles, header.grid, (0,) * len(header.grid)).top


def _find(tree: object, digest: TreeDigest, path: Path) -> tuple[int, Leaf]:
    leaves = read_tree(tree).leaves
    if [leaf.header.path for leaf in leaves] != [tensor.path for tensor in digest.tensors]:
        raise AnhError("opening: the tree has other paths than the one that was digested")
    for place, leaf in enumerate(leaves):
        if leaf.header.path == path:
            return place, leaf
    raise AnhError(f"opening: no tensor at {path_text(path)}")


def _held(leaf: Leaf) -> NDArray:
    holding = hold(leaf)
    if not holding.spread.complete:
        raise AnhError(
            f"opening: {path_text(leaf.header.path)}: spread over processes; open it where one "
            "process holds all of it"
        )
    return whole(holding.value)


def _climb(
    hashes: BulkHashes, digests: Sequence[bytes], grid: Sequence[int], index: Sequence[int]
) -> _Climb:
    remaining, position = list(grid), list(index)
    siblings: list[bytes] = []
    for axis in merge_axes(grid):
        position[axis] ^= 1
        siblings.append(digests[_flat(position, remaining)])
        digests = merge(hashes, digests, remaining, (axis,))
        position[axis] >>= 1
        remaining[axis] //= 2
    return _Climb(digests[0], tuple(siblings))


def _flat(index: Sequence[int], grid: Sequence[int]) -> int:
    flat = 0
    for at, count in zip(index, grid, strict=True):
        flat = flat * count + at
    return flat
