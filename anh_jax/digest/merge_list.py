"""Merge digests in the order of a list, slab by slab, with one compiled instance of the hash.

A tree of a thousand tensors has dozens of levels; one hash instance for each would take most of a
minute to compile. So all values of a tree stand in one pool, and a list that is made on the host
says which two rows each merge reads; its results follow the pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]
# Merge pairs uint32[n, 16] of one kind (a traced int32) to uint32[n, 8].
Merge: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


class Kind(IntEnum):
    """Say what a merge makes: an inner value of a tile's chunk tree, a tile's digest, or a node."""

    PARENT = 0
    TILE = 1
    NODE = 2


@dataclass(frozen=True, slots=True)
class MergeList:
    """Say which rows of the pool each merge reads: int32[slabs, lanes, 2], int32[slabs] kinds.

    Slab s writes rows `pool + s * lanes` and following; what pads a slab reads row 0.
    """

    pairs: NDArray[np.int32]
    kinds: NDArray[np.int32]


@dataclass(slots=True)
class MergeLevels:
    """Collect the merges of a pool of `pool` rows, level by level."""

    pool: int
    _levels: list[tuple[Kind, Rows]] = field(default_factory=list[tuple[Kind, Rows]])
    _size: int = 0

    def add(self, kind: Kind, pairs: Rows) -> Rows:
        """Merge pairs of rows int64[n, 2]; return the rows of the results, valid in `add` alone."""
        if not len(pairs):
            return np.zeros(0, np.int64)
        rows = self.pool + self._size + np.arange(len(pairs))
        self._levels.append((kind, pairs))
        self._size += len(pairs)
        return rows

    def finish(self, lanes: int) -> "FinishedMerges":
        """Lay the levels out in slabs of at most `lanes` merges; no slab holds two levels."""
        widest = max((len(pairs) for _, pairs in self._levels), default=0)
        lanes = min(lanes, widest)
        starts, slabs, kinds = [np.arange(self.pool)], 0, list[int]()
        for kind, pairs in self._levels:
            starts.append(self.pool + slabs * lanes + np.arange(len(pairs)))
            count = -(-len(pairs) // lanes)
            kinds += [kind] * count
            slabs += count
        places = np.concatenate(starts)
        merges = np.zeros((slabs * lanes, 2), np.int32)
        for (_, pairs), place in zip(self._levels, starts[1:], strict=True):
            merges[place - self.pool] = places[pairs]
        pairs = merges.reshape(slabs, lanes, 2)
        return FinishedMerges(MergeList(pairs, np.array(kinds, np.int32)), places)


@dataclass(frozen=True, slots=True)
class FinishedMerges:
    """Hold the list, and where each row that `MergeLevels.add` returned has gone."""

    merges: MergeList
    places: Rows


def merge_chunks(levels: MergeLevels, chunks: Sequence[Rows]) -> list[Rows]:
    """Add the chunk trees of messages; each array int64[n, chunks] has messages of one length.

    Neighbours are paired level by level and an odd last one is carried up, which is BLAKE3's tree
    (section 2.1: every left subtree is the largest complete one). Roots come last, all at once.
    Returns the rows int64[n] of the messages' digests.
    """
    now = list(chunks)
    while any(rows.shape[1] > 2 for rows in now):
        tall = [index for index, rows in enumerate(now) if rows.shape[1] > 2]
        pairs = [now[index][:, : now[index].shape[1] // 2 * 2].reshape(-1, 2) for index in tall]
        results = _split(levels.add(Kind.PARENT, np.concatenate(pairs)), pairs)
        for index, result in zip(tall, results, strict=True):
            count, width = now[index].shape
            carried = now[index][:, width // 2 * 2 :]
            now[index] = np.concatenate([result.reshape(count, width // 2), carried], axis=1)
    roots = [rows for rows in now if rows.shape[1] == 2]
    merged = iter(_split(levels.add(Kind.TILE, _joined(roots)), roots))
    return [next(merged) if rows.shape[1] == 2 else rows[:, 0] for rows in now]


def merge_nodes(levels: MergeLevels, leaves: Sequence[Rows]) -> list[Rows]:
    """Add perfect binary trees: each row of an int64[n, 2^k] is one tree's leaves in order.

    Returns the rows int64[n] of their roots.
    """
    now = list(leaves)
    while any(rows.shape[1] > 1 for rows in now):
        tall = [index for index, rows in enumerate(now) if rows.shape[1] > 1]
        pairs = [now[index].reshape(-1, 2) for index in tall]
        results = _split(levels.add(Kind.NODE, np.concatenate(pairs)), pairs)
        for index, result in zip(tall, results, strict=True):
            now[index] = result.reshape(len(now[index]), -1)
    return [rows[:, 0] for rows in now]


def run_merges(pool: jax.Array, pairs: jax.Array, kinds: jax.Array, merge: Merge) -> jax.Array:
    """Return the pool uint32[n, 8] followed by the results of a merge list, padding included."""
    slabs, lanes = pairs.shape[:2]
    if not slabs:
        return pool
    first = pool.shape[0]
    rows = jnp.concatenate([pool, jnp.zeros((slabs * lanes, 8), jnp.uint32)])

    def one_slab(slab: jax.Array, rows: jax.Array) -> jax.Array:
        merged = merge(rows[pairs[slab]].reshape(lanes, 16), kinds[slab])
        return lax.dynamic_update_slice_in_dim(rows, merged, first + slab * lanes, 0)

    return lax.fori_loop(0, slabs, one_slab, rows)


def _joined(pairs: Sequence[Rows]) -> Rows:
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])


def _split(rows: Rows, parts: Sequence[Rows]) -> list[Rows]:
    ends = np.cumsum([len(part) for part in parts])
    return np.split(rows, ends[:-1]) if len(parts) else []
