"""A digested tree as others may read it: its manifest, its tile digests, its bytes tile after tile.

The bytes of a tensor are served in the order of its tiles (C order of the grid, each tile's
elements in C order), so any range of whole tiles is checked by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.compose import TreeDigest, compose
from anh_jax.digest.hashes import bulk_hashes
from anh_jax.digest.layout import lay_out
from anh_jax.digest.merge import merge_top
from anh_jax.digest.shards import hold, whole
from anh_jax.digest.tiles import element_bytes, hash_tiles, tiled
from anh_jax.digest.tree import Leaf, read_tree
from anh_jax.errors import AnhError
from attest.digest_tree import path_text, tile_dims
from attest.served_tree import ServedTensor, TreeManifest
from attest.tensor_header import TensorHeader

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Say which tree of which run it is: run id and row hash in hex, part, steps completed."""

    run: str
    row: str
    part: str
    step: int


class ServedTree:
    """One tree, whole in this process, described down to its tiles.

    Raises AnhError where a tensor is spread over processes.
    """

    def __init__(self, tree: object, place: Place, *, alg: str) -> None:
        self._hashes = bulk_hashes(alg)
        self._leaves = read_tree(tree).leaves
        # A tensor lies here once more, whole, while its bytes are read.
        self._whole = lru_cache(maxsize=1)(self._held)
        self._tiles = [self._hashed(index) for index in range(len(self._leaves))]
        tops = [self._top(index) for index in range(len(self._leaves))]
        named = zip(self._leaves, tops, strict=True)
        digest = compose(
            lay_out(tree).layout,
            {leaf.path_bytes: top for leaf, top in named},
            step=place.step,
            alg=alg,
        )
        self.root = digest.root.hex()
        self.manifest = self._manifest(place, digest, tops)

    def tile_digests(self, index: int) -> bytes:
        """Return the digests of a tensor's tiles, 32 bytes each, in C order of the grid."""
        return self._tiles[index]

    def size(self, index: int) -> int:
        """Return the bytes of a tensor."""
        return tensor_size(self.manifest.tensors[index].header)

    def read(self, index: int, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of a tensor, in the order of its tiles."""
        header = self.manifest.tensors[index].header
        array, size = self._whole(index), header.tile_bytes
        if not size:
            return b""
        first, last = start // size, -(-stop // size)
        data = b"".join(tile_of(array, header, tile) for tile in range(first, last))
        return data[start - first * size : stop - first * size]

    def _manifest(self, place: Place, digest: TreeDigest, tops: Sequence[bytes]) -> TreeManifest:
        named = zip(self._leaves, tops, strict=True)
        tensors = tuple(ServedTensor(leaf.header, top) for leaf, top in named)
        return TreeManifest(
            run=place.run,
            row=place.row,
            part=place.part,
            step=place.step,
            alg=digest.alg,
            structure=digest.structure,
            tensors=tensors,
        )

    def _top(self, index: int) -> bytes:
        grid = self._leaves[index].header.grid
        return merge_top(self._hashes, split_digests(self._tiles[index]), grid)

    def _hashed(self, index: int) -> bytes:
        header = self._leaves[index].header
        cut = tiled(self._whole(index), tile_dims(header.dims, header.grid))
        return b"".join(hash_tiles(self._hashes, cut))

    def _held(self, index: int) -> NDArray:
        leaf: Leaf = self._leaves[index]
        holding = hold(leaf)
        if not holding.spread.complete:
            raise AnhError(
                f"{path_text(leaf.header.path)}: spread over processes; replay on a mesh of one"
            )
        return whole(holding.value)


def tensor_size(header: TensorHeader) -> int:
    """Return the bytes of a tensor."""
    return math.prod(header.grid) * header.tile_bytes


def split_digests(data: bytes) -> list[bytes]:
    """Cut joined digests into a list of them."""
    return [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]


def tile_of(array: NDArray, header: TensorHeader, tile: int) -> bytes:
    """Return the bytes of one tile of an array, counted in C order of the grid."""
    return element_bytes(array[(*tile_block(header, tile), ...)]).tobytes()


def tile_index(header: TensorHeader, tile: int) -> tuple[int, ...]:
    """Return the coordinates of a tile on each axis of the grid."""
    return tuple(int(at) for at in np.unravel_index(tile, header.grid)) if header.grid else ()


def tile_block(header: TensorHeader, tile: int) -> tuple[slice, ...]:
    """Return where a tile lies in its array."""
    extents = tile_dims(header.dims, header.grid)
    places = zip(tile_index(header, tile), extents, strict=True)
    return tuple(slice(at * extent, (at + 1) * extent) for at, extent in places)
