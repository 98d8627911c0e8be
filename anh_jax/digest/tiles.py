"""Cut an array into its tiles and hash them, with as few copies as the shapes allow.

The grid is `attest.digest_tree.tile_grid`: a function of shape and element width alone, so every
power-of-two sharding is made of whole tiles. Bits are hashed, never values: no conversion may
quiet a NaN or drop the sign of a zero.

Three ways, by what a tile is in memory: one piece, hashed where it lies; rows of at most SLAB_BYTES
in all, gathered for a few tiles at a time into a slab that stays in the cache; more than that (odd
extents), gathered and hashed by parts, several tiles of a row side by side so that memory is read
in order.
"""

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.hashes import BulkHashes, Stream
from attest.digest_tree import LARGEST_BYTE

Bytes: TypeAlias = NDArray[np.uint8]
Runs: TypeAlias = NDArray[np.void]

# Gathered tiles and the bytes that they come from stay together in a core's second-level cache.
SLAB_BYTES = 1 << 19
# Where a tile is fed in parts, a row of tiles at a time: parts that keep the hash's vector lanes
# full, and so many tiles side by side that memory is read in long runs.
PART_BYTES = 1 << 17
SIDE_BY_SIDE = 16
# numpy has no elements of 2 GiB; what is longer is handled as the array's own elements.
LONGEST_RUN = 1 << 30


@dataclass(frozen=True, slots=True)
class Tiled:
    """View an array, or some of its tiles, as runs of bytes that lie together in every tile.

    `runs` is void[*grid, *rows]: `axes` axes count tiles, the others the runs within one tile;
    `tile_bytes` is the size of a tile and `dtype` says what the bytes stand for.
    """

    runs: Runs
    axes: int
    tile_bytes: int
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tiles."""
        return self.runs.size * self.runs.itemsize

    def parts(self, size: int) -> "list[Tiled]":
        """Split into parts of about `size` bytes whose tiles follow one another."""
        axis = next((a for a in range(self.axes) if self.runs.shape[a] > 1), None)
        if axis is None or self.nbytes <= size:
            return [self]
        count = self.runs.shape[axis]
        step = max(1, count * size // self.nbytes)
        before = (slice(None),) * axis
        return [
            Tiled(
                self.runs[(*before, slice(at, at + step))], self.axes, self.tile_bytes, self.dtype
            )
            for at in range(0, count, step)
        ]


def tiled(array: NDArray[Any], tile: Sequence[int]) -> Tiled:
    """Cut an array into tiles of a shape whose extents divide the array's; no copy if C ordered."""
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    # numpy has 64 axes at most, and a cut makes two of each: those of one element are left out.
    tile = [extent for dim, extent in zip(array.shape, tile, strict=True) if dim != 1]
    array = array.reshape([dim for dim in array.shape if dim != 1])
    grid = [dim // max(extent, 1) or 1 for dim, extent in zip(array.shape, tile, strict=True)]
    # Behind the last axis that is cut, all elements of a tile lie together.
    last = max((axis for axis, count in enumerate(grid) if count > 1), default=0)
    tile_bytes = math.prod(tile) * array.dtype.itemsize
    run = math.prod(tile[last:]) * array.dtype.itemsize
    if not run:  # the one tile of an empty array
        return Tiled(np.zeros((1, 1), "V1"), 1, 0, array.dtype)
    if not array.ndim:
        return Tiled(array.reshape(1).view(f"V{run}"), 1, tile_bytes, array.dtype)
    pairs = [extent for axis in range(last) for extent in (grid[axis], tile[axis])]
    piece = run if run <= LONGEST_RUN else array.dtype.itemsize
    within = () if piece == run else (run // piece,)
    runs = array.reshape(-1).view(f"V{piece}").reshape(*pairs, grid[last], *within)
    order = (*range(0, 2 * last + 1, 2), *range(1, runs.ndim, 2))
    return Tiled(runs.transpose(order), last + 1, tile_bytes, array.dtype)


def hash_tiles(hashes: BulkHashes, cut: Tiled) -> list[bytes]:
    """Return the tile digests, in C order of the grid."""
    if not cut.tile_bytes:
        return hashes.tiles([b""])
    if cut.runs.flags.c_contiguous:
        return _hash_pieces(hashes, cut)
    if cut.tile_bytes <= SLAB_BYTES:
        return _hash_slabs(hashes, cut)
    return _hash_parts(hashes, cut)


def element_bytes(array: NDArray[Any]) -> Bytes:
    """Return the elements in C order as little endian bytes; a view where they lie so."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return data if _lies_so(array.dtype) else _corrected(data.copy(), array.dtype)


def _hash_pieces(hashes: BulkHashes, cut: Tiled) -> list[bytes]:
    """Hash tiles that follow one another in memory."""
    data, size = cut.runs.reshape(-1).view(np.uint8), cut.tile_bytes
    digests: list[bytes] = []
    if _lies_so(cut.dtype):
        step = max(1, SLAB_BYTES // size) * size
        for at in range(0, len(data), step):
            block = data[at : at + step]
            _read_ahead(block)
            view = block.data
            digests += hashes.tiles(view[i : i + size] for i in range(0, len(view), size))
        return digests
    for at in range(0, len(data), size):
        stream = hashes.stream()
        for start in range(at, at + size, SLAB_BYTES):
            part = data[start : min(start + SLAB_BYTES, at + size)].copy()
            stream.update(_corrected(part, cut.dtype).data)
        digests.append(stream.digest())
    return digests


def _hash_slabs(hashes: BulkHashes, cut: Tiled) -> list[bytes]:
    """Gather a few tiles, hash them from the cache, and use the same memory again."""
    size, run = cut.tile_bytes, cut.runs.itemsize
    slab = np.empty(min(SLAB_BYTES // size * size, cut.nbytes), np.uint8)
    runs = slab.view(cut.runs.dtype)
    views = [slab.data[at : at + size] for at in range(0, len(slab), size)]
    lies_so = _lies_so(cut.dtype)
    digests: list[bytes] = []
    for block in _slabs(cut.runs, cut.axes, len(views)):
        _read_ahead(block)
        np.copyto(runs[: block.size].reshape(block.shape), block)
        if not lies_so:
            _corrected(slab[: block.size * run], cut.dtype)
        digests += hashes.tiles(views[: block.size * run // size])
    return digests


def _slabs(runs: Runs, axes: int, tiles: int) -> Iterator[Runs]:
    """Yield blocks of at most `tiles` tiles that follow one another, as views."""
    row = math.prod(runs.shape[1:axes])
    if row > tiles:
        for block in runs:
            yield from _slabs(block, axes - 1, tiles)
        return
    count = runs.shape[0]
    blocks = math.ceil(count / (tiles // row))
    step = math.ceil(count / blocks)  # blocks of equal size: a short one costs as much
    for at in range(0, count, step):
        yield runs[at : at + step]


def _hash_parts(hashes: BulkHashes, cut: Tiled) -> list[bytes]:
    """Feed large tiles to one hash each, part by part: a row of them at a time."""
    run = cut.runs.itemsize
    part = 1 << max(0, (PART_BYTES // run).bit_length() - 1)
    columns = min(SIDE_BY_SIDE, cut.runs.shape[cut.axes - 1])
    slab = np.empty(columns * part, cut.runs.dtype)
    digests: list[bytes] = []
    for place in np.ndindex(*cut.runs.shape[: cut.axes - 1]):
        row = cut.runs[place]  # void[tiles, *rows]
        for at in range(0, row.shape[0], columns):
            tiles = row[at : at + columns]
            streams = [hashes.stream() for _ in range(tiles.shape[0])]
            for block in _row_blocks(tiles, part):
                gathered = slab[: block.size].reshape(block.shape)
                _read_ahead(block)
                np.copyto(gathered, block)
                _feed(streams, gathered.view(np.uint8), cut.dtype)
            digests += [stream.digest() for stream in streams]
    return digests


def _read_ahead(block: NDArray[Any]) -> None:
    """Bring a block that is one piece of memory into the cache, by reading it in order.

    The result is of no use. Gathering rows, and hashing, wait for memory again and again; a plain
    scan does not, because the processor sees what it will read next.
    """
    lying = block.transpose(sorted(range(block.ndim), key=lambda axis: -block.strides[axis]))
    if block.nbytes <= 4 * SLAB_BYTES and lying.flags.c_contiguous and block.nbytes % 8 == 0:
        np.bitwise_or.reduce(lying.reshape(-1).view(np.uint8).view(np.uint64))


def _row_blocks(tiles: Runs, part: int) -> Iterator[Runs]:
    """Yield void[tiles, at most `part`] blocks of runs, in C order of the runs of a tile."""
    if tiles.ndim > 2:
        for index in range(tiles.shape[1]):
            yield from _row_blocks(tiles[:, index], part)
        return
    for at in range(0, tiles.shape[1], part):
        yield tiles[:, at : at + part]


def _feed(streams: Sequence[Stream], parts: Bytes, dtype: np.dtype[Any]) -> None:
    if not _lies_so(dtype):
        _corrected(parts.reshape(-1), dtype)
    for stream, part in zip(streams, parts, strict=True):
        stream.update(part.data)


@functools.cache
def _lies_so(dtype: np.dtype[Any]) -> bool:
    """Say whether elements of a dtype lie in memory as they are hashed."""
    return dtype.name not in LARGEST_BYTE and not _swapped(dtype)


def _swapped(dtype: np.dtype[Any]) -> bool:
    return dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big")


def _corrected(data: Bytes, dtype: np.dtype[Any]) -> Bytes:
    """Bring bytes in place to the order and the values that are hashed."""
    if _swapped(dtype):
        width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        data.view(f"u{width}").byteswap(inplace=True)
    # One value, one byte: what else a narrow type's byte may hold is not state.
    if dtype.name == "bool":
        np.not_equal(data, 0, out=data.view(np.bool_))
    elif dtype.name in LARGEST_BYTE:
        np.bitwise_and(data, np.uint8(LARGEST_BYTE[dtype.name]), out=data)
    return data
