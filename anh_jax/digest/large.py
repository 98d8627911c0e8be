"""Digest the tensors that are worth a thread, a look-up, or an exchange with other processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from anh_jax.digest.exchange import Exchange, Subtrees, completed
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.hashes import BulkHashes
from anh_jax.digest.merge import merge, merge_top
from anh_jax.digest.shards import Holding, hold
from anh_jax.digest.tiles import Tiled, tiled
from anh_jax.digest.tree import Array, Leaf
from anh_jax.digest.workers import hash_all
from attest.digest_tree import merge_axes, tile_dims

# Threads are given this much at a time: what lies elsewhere is on the host no longer than needed.
_BATCH_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Held:
    """A tensor and its blocks on this process, each with the offset of its first element."""

    leaf: Leaf
    holding: Holding
    starts: tuple[tuple[int, ...], ...]
    cuts: tuple[Tiled, ...]


@dataclass(slots=True)
class LargeTensors:
    """Take in tensors one by one and return the roots of their tiles at the end.

    `frozen` is what is remembered of arrays that come back, or None to read every array again;
    `notes` names the tensors that were copied together. Views of device buffers are let go with
    every batch.
    """

    hashes: BulkHashes
    frozen: FrozenTops | None
    threads: int
    notes: list[str] = field(default_factory=list[str])
    _tops: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    _spread: list[Subtrees] = field(default_factory=list[Subtrees])
    _batch: list[_Held] = field(default_factory=list[_Held])
    _batch_bytes: int = 0

    def add(self, leaf: Leaf) -> None:
        """Take in a tensor. Raises AnhError where its sharding cannot be hashed."""
        known = None if self.frozen is None else self.frozen.find(leaf.value)
        if known is not None:
            self._tops[leaf.path_bytes] = known
            return
        held = _held(leaf)
        if held.holding.note is not None:
            self.notes.append(held.holding.note)
        self._batch.append(held)
        self._batch_bytes += sum(cut.nbytes for cut in held.cuts)
        if self.threads == 1 or self._batch_bytes > _BATCH_BYTES:
            self._hash_batch()

    def finish(self, exchange: Exchange | None) -> dict[bytes, bytes]:
        """Return the root of each tensor's tiles by its path bytes; errors as `completed` says."""
        self._hash_batch()
        for held, filled in zip(self._spread, completed(self._spread, exchange), strict=True):
            rows = [row.tobytes() for row in filled.digests.reshape(-1, 32)]
            top = merge(self.hashes, rows, filled.digests.shape[:-1], filled.axes)[0]
            # What takes an exchange must take it on every process alike, so it is not remembered.
            self._settle(held.leaf, top, remember=held.complete)
        return self._tops

    def _hash_batch(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        digests = iter(
            hash_all(self.hashes, [c for held in batch for c in held.cuts], self.threads)
        )
        for held in batch:
            grid = held.leaf.header.grid
            if all(part == 1 for part in held.holding.spread.parts):
                top = merge_top(self.hashes, next(digests), grid)
                self._settle(held.leaf, top, remember=_needs_no_other(held.leaf.value))
            else:
                blocks = [next(digests) for _ in held.cuts]
                self._spread.append(_subtrees(self.hashes, held, blocks))

    def _settle(self, leaf: Leaf, top: bytes, *, remember: bool) -> None:
        self._tops[leaf.path_bytes] = top
        if remember and self.frozen is not None:
            self.frozen.keep(leaf.value, top)


def _needs_no_other(value: Array) -> bool:
    """Tell whether this process holds all of an array; else all replicate it together, or none."""
    return not isinstance(value, jax.Array) or (
        value.is_fully_addressable or value.is_fully_replicated
    )


def _held(leaf: Leaf) -> _Held:
    holding = hold(leaf)
    tile = tile_dims(leaf.header.dims, leaf.header.grid)
    blocks = list(holding.blocks())
    return _Held(
        leaf,
        holding,
        tuple(block.start for block in blocks),
        tuple(tiled(block.values, tile) for block in blocks),
    )


def _subtrees(hashes: BulkHashes, held: _Held, blocks: Sequence[list[bytes]]) -> Subtrees:
    """Merge the tiles held here up to the largest subtrees that lie within one block."""
    header, parts = held.leaf.header, held.holding.spread.parts
    axes = merge_axes(header.grid)
    remaining, count = list(header.grid), 0
    while count < len(axes) and remaining[axes[count]] > parts[axes[count]]:
        remaining[axes[count]] //= 2
        count += 1
    digests = np.zeros((*remaining, 32), np.uint8)
    owned = np.zeros(remaining, np.bool_)
    tiles_here = [tiles // part for tiles, part in zip(header.grid, parts, strict=True)]
    extents = [left // part for left, part in zip(remaining, parts, strict=True)]
    for start, tiles in zip(held.starts, blocks, strict=True):
        merged = merge(hashes, tiles, tiles_here, axes[:count])
        place = tuple(
            slice(at * left // max(dim, 1), at * left // max(dim, 1) + extent)
            for at, left, dim, extent in zip(start, remaining, header.dims, extents, strict=True)
        )
        rows = np.frombuffer(b"".join(merged), np.uint8)
        digests[place], owned[place] = rows.reshape(*extents, 32), True
    return Subtrees(held.leaf, digests, owned, axes[count:], held.holding.spread.complete)
