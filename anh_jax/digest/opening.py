"""Open one tile of a digested pytree: a file that anyone can check against the state digest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.host import hash_tiles, level_hash, row_hash, tensor_root
from anh_jax.digest.shards import hold, whole
from anh_jax.digest.tiles import Bytes, element_bytes
from anh_jax.digest.tree import Leaf, RowHash, merge, read_tree
from anh_jax.errors import AnhError
from attest.digest_tree import Path, merge_axes, path_text, set_siblings, tile_dims
from attest.errors import AttestError
from attest.opening import Opening


@dataclass(frozen=True, slots=True)
class _Climb:
    """Hold the root uint8[1, ..., 1, 32] of a tensor's tiles and one tile's siblings below it."""

    top: Bytes
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
    hash_rows = row_hash(digest.alg)
    hash_level = level_hash(hash_rows)
    array = _held(leaf)
    climb = _climb(hash_rows, hash_tiles(hash_rows, array, tile), index)
    if tensor_root(hash_level, leaf.header_bytes, climb.top) != digest.tensors[place].root:
        raise AnhError(f"opening: {path_text(path)}: differs from what was digested")
    block = tuple(slice(at * size, (at + 1) * size) for at, size in zip(index, tile, strict=True))
    roots = [tensor.root for tensor in digest.tensors]
    return Opening(
        alg=digest.alg,
        header=header,
        index=index,
        tile=element_bytes(array[(*block, ...)], array.dtype).tobytes(),
        siblings=climb.siblings,
        set_index=place,
        set_siblings=set_siblings(hash_level, roots, place),
        tensors=len(roots),
        structure=digest.structure,
        step=digest.step,
    )


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


def _climb(hash_rows: RowHash, digests: Bytes, index: tuple[int, ...]) -> _Climb:
    position = np.array(index, dtype=np.intp)
    siblings: list[bytes] = []
    for axis in merge_axes(digests.shape[:-1]):
        beside = position.copy()
        beside[axis] ^= 1
        siblings.append(digests[tuple(beside)].tobytes())
        digests = merge(hash_rows, digests, (axis,))
        position[axis] >>= 1
    return _Climb(digests, tuple(siblings))
