"""Say where the bytes of a tensor's tiles lie in its array, so that a kernel reads them there.

A block of BLAKE3 is 64 bytes. Where the runs of a tile (what it has side by side in memory) are
whole blocks, every block of a tile is one piece of the array, and no copy is needed to hash it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

from anh_jax.digest.kernels import BLOCK_BYTES, CHUNK_BLOCKS, CHUNK_BYTES

# Pallas counts elements in 32 signed bits.
_MAX_ELEMENTS = 1 << 31


@dataclass(frozen=True, slots=True)
class BlockCut:
    """Say how the tiles of a row-major array lie in it, counted in blocks of 64 bytes.

    Along each axis, `grid` counts tiles and `tile` is the extent of one; `strides` is how far
    neighbours lie apart. The last axis is counted in blocks: there `tile` is a run, the stride 1.
    """

    grid: tuple[int, ...]
    tile: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Return how many tiles there are."""
        return math.prod(self.grid)

    @property
    def blocks(self) -> int:
        """Return the blocks of a tile."""
        return math.prod(self.tile)

    @property
    def chunks(self) -> int:
        """Return the full chunks of a tile, which has more than one chunk."""
        return self.blocks // CHUNK_BLOCKS

    def tile_place(self, tile: Any) -> Any:
        """Return where tiles (int32, in C order of the grid) begin, relative to the first."""
        steps = (extent * each for extent, each in zip(self.tile, self.strides, strict=True))
        return _mixed(tile, self.grid, tuple(steps))

    def run_place(self, run: Any) -> Any:
        """Return where runs (int32, in C order of a tile) begin, relative to their tile."""
        return _mixed(run, self.tile[:-1], self.strides[:-1])

    def place(self, tile: Any, block: Any) -> Any:
        """Return where blocks (int32, in C order) of tiles lie, relative to the first tile."""
        run, within = _divided(block, self.tile[-1])
        return self.tile_place(tile) + self.run_place(run) + within


def block_cut(
    dims: Sequence[int], tile: Sequence[int], grid: Sequence[int], itemsize: int
) -> BlockCut | None:
    """Describe `grid` tiles of an array of `dims`; None where the blocks are not whole in it.

    The tiles may be a part of the array; then the others follow them at the same distances.
    Tiles of a single chunk, which is their root, have no full chunks: None as well.
    """
    if math.prod(dims) >= _MAX_ELEMENTS or math.prod(tile) * itemsize <= CHUNK_BYTES:
        return None
    axes = list(zip(dims, tile, grid, strict=True))
    last, extent, count = axes.pop()
    while extent == last and axes:  # what is not cut lies side by side with the axis before
        outer, outer_extent, count = axes.pop()
        last, extent = last * outer, extent * outer_extent
    row, run = last * itemsize, extent * itemsize
    if run % BLOCK_BYTES or row % BLOCK_BYTES:
        return None
    axes.append((row // BLOCK_BYTES, run // BLOCK_BYTES, count))
    extents = [extent for extent, _, _ in axes]
    return BlockCut(
        grid=tuple(count for _, _, count in axes),
        tile=tuple(extent for _, extent, _ in axes),
        strides=tuple(math.prod(extents[axis + 1 :]) for axis in range(len(axes))),
    )


def _mixed(number: Any, radices: Sequence[int], steps: Sequence[int]) -> Any:
    """Take numbers apart by radices, the last one lowest, and sum the digits times their steps."""
    place = number * 0
    for axis in reversed(range(len(radices))):
        # The highest digit needs no division: no number is larger than the product.
        digit = number
        if axis:
            number, digit = _divided(number, radices[axis])
        place = place + digit * steps[axis]
    return place


def _divided(number: Any, divisor: int) -> tuple[Any, Any]:
    """Return quotient and rest; no number is negative here, so that neither needs a sign."""
    if not isinstance(number, jax.Array):
        return divmod(number, divisor)
    if divisor == 1:
        return number, number * 0
    by = np.int32(divisor)
    quotient = lax.div(number, by)
    return quotient, number - quotient * by
