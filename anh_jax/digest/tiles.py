"""Cut an array into the bytes of its tiles.

The grid is `attest.digest_tree.tile_grid`: a function of shape and element width alone, so every
power-of-two sharding is made of whole tiles. Bits are hashed, never values: no conversion may
quiet a NaN or drop the sign of a zero.
"""

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attest.digest_tree import LARGEST_BYTE

Bytes = NDArray[np.uint8]

# One slab of tiles is copied into tile order and hashed while it is still in the cache; a whole
# copy of a large array would also double its memory.
SLAB_BYTES = 1 << 20


def tile_slabs(array: NDArray, tile: Sequence[int]) -> Iterator[Bytes]:
    """Yield the tiles of an array as uint8[tiles, bytes of a tile], in C order of its grid.

    `tile` is the shape of a tile; each of its extents divides the array's.
    """
    grid = [dim // max(extent, 1) or 1 for dim, extent in zip(array.shape, tile, strict=True)]
    bits = _bits(array)
    pairs = [extent for axis in zip(grid, tile, strict=True) for extent in axis]
    split = bits.reshape(pairs or [1, 1])  # splitting axes never copies
    order = (*range(0, split.ndim, 2), *range(1, split.ndim, 2))
    tile_bytes = math.prod(tile) * array.dtype.itemsize
    row_bytes = math.prod(grid[1:]) * tile_bytes
    rows = max(1, SLAB_BYTES // max(row_bytes, 1))
    for start in range(0, split.shape[0], rows):
        slab = split[start : start + rows].transpose(order)
        count = slab.shape[0] * math.prod(grid[1:])
        yield element_bytes(slab, array.dtype).reshape(count, tile_bytes)


def element_bytes(array: NDArray, dtype: np.dtype) -> Bytes:
    """Return the elements in C order as little endian bytes; `dtype` says what they stand for."""
    elements = np.ascontiguousarray(array)
    if dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big"):
        elements = elements.byteswap()
    data = elements.reshape(-1).view(np.uint8)
    if dtype.name not in LARGEST_BYTE:
        return data
    # One value, one byte: what else a narrow type's byte may hold is not state.
    if dtype.name == "bool":
        return (data != 0).view(np.uint8)
    return data & np.uint8(LARGEST_BYTE[dtype.name])


def _bits(array: NDArray) -> NDArray:
    """View elements as unsigned integers: numpy copies those fastest, and never interprets them."""
    if array.dtype.kind == "c":  # a complex number is two words, and swaps bytes as two words
        return array
    return array.view(f"u{array.dtype.itemsize}")
