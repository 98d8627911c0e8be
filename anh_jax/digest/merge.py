"""Merge digests up a grid of tiles: a list in an order in which every merge joins neighbours."""

import functools
from collections.abc import Sequence

import numpy as np

from anh_jax.digest.hashes import BulkHashes
from attest.digest_tree import merge_axes


def merge(
    hashes: BulkHashes, digests: Sequence[bytes], grid: Sequence[int], axes: Sequence[int]
) -> list[bytes]:
    """Join even and odd neighbours of a grid, once along each of `axes` in turn.

    `digests` are in C order of `grid`; so is the result, of what remains of the grid.
    """
    order = pair_order(tuple(grid), tuple(axes))
    level = [digests[place] for place in order]
    for _ in axes:
        level = hashes.pairs(level)
    return level


def merge_top(hashes: BulkHashes, digests: Sequence[bytes], grid: tuple[int, ...]) -> bytes:
    """Return the root of a whole grid of digests."""
    return merge(hashes, digests, grid, _all_axes(grid))[0]


def merge_order(grid: Sequence[int]) -> tuple[int, ...]:
    """List the tiles, by C order of the grid, so that every merge joins neighbours in the list."""
    return pair_order(tuple(grid), merge_axes(grid))


@functools.lru_cache(maxsize=256)  # of a large tensor it has a place for every tile
def pair_order(grid: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """List the places of a grid so that merges along `axes` in turn join neighbours.

    Each count of the grid is a power of two: a place is a number in bits, and a merge along an
    axis takes away the lowest that is left of the axis's bits. The first merge's bit goes last.
    """
    bits = [count.bit_length() - 1 for count in grid]
    ends = np.cumsum([0, *bits])  # the bits of axis a: ends[a] to ends[a + 1], the highest first
    left, taken = list(bits), list[int]()
    for axis in axes:
        left[axis] -= 1
        taken.append(int(ends[axis]) + left[axis])
    kept = [int(ends[axis]) + bit for axis in range(len(bits)) for bit in range(left[axis])]
    places = np.arange(1 << sum(bits)).reshape((2,) * sum(bits))
    return tuple(places.transpose([*kept, *reversed(taken)]).reshape(-1).tolist())


@functools.lru_cache(maxsize=4096)
def _all_axes(grid: tuple[int, ...]) -> tuple[int, ...]:
    return merge_axes(grid)
