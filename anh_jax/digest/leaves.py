"""Hash the leaves of many messages of many lengths in few calls.

A leaf is what a hash takes in one pass over its words: a chunk of BLAKE3, a whole message of
SHA-256. Full chunks of all messages are one call. What remains differs in length, so it is put in
buckets by its number of blocks, and each lane of a bucket has its own length.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.block_cut import BlockCut
from anh_jax.digest.merge_list import Rows

Words: TypeAlias = NDArray[np.uint32]
BLOCK_BYTES = 64
# Hashing fewer blocks than this (1 MiB) in vain costs less than compiling one more instance.
_OWN_BUCKET_BLOCKS = 1 << 14


@dataclass(frozen=True, slots=True)
class Messages:
    """Count messages of `length` bytes each."""

    count: int
    length: int


@dataclass(frozen=True, slots=True)
class ChunkHash:
    """Hash full chunks of `size` bytes that are not their message's only one.

    `rows(words, counters)` takes uint32[n, size / 4] and the chunks' places in their messages,
    uint32[n], to uint32[n, 8]. `in_place(tensors, cut, first)` hashes chunks of tensors where they
    lie, as `Kernels.tensor_chunks` says; None where no kernel can.
    """

    size: int
    rows: Callable[[jax.Array, jax.Array], jax.Array]
    in_place: Callable[[Sequence[jax.Array], BlockCut, jax.Array], jax.Array] | None


class LeafHash(Protocol):
    """Hash leaves; `chunks` is None where a message is hashed from end to end."""

    @property
    def chunks(self) -> ChunkHash | None:
        """Return what hashes full chunks."""
        ...

    def blocks(self, length: int) -> int:
        """Return the blocks that a last leaf of `length` bytes takes."""
        ...

    def last(
        self, words: jax.Array, lengths: jax.Array, counters: jax.Array, whole: jax.Array
    ) -> jax.Array:
        """Hash last leaves uint32[n, 16 blocks] of `lengths` bytes to uint32[n, 8].

        `counters` uint32[n] are their places in their messages; `whole` uint32[n] is 1 where the
        leaf is all of its message.
        """
        ...


@dataclass(frozen=True, slots=True)
class LastLeaves:
    """Describe each lane of a bucket, uint32[n] each; numpy's until they are placed."""

    lengths: jax.Array
    counters: jax.Array
    whole: jax.Array


@dataclass(frozen=True, slots=True)
class LeafOperands:
    """Hold the numbers a batch's program takes as arguments, so that they are no constants in it.

    `counters` uint32[n] are the full chunks' places in their messages.
    """

    counters: jax.Array
    buckets: tuple[LastLeaves, ...]


jax.tree_util.register_dataclass(LastLeaves)
jax.tree_util.register_dataclass(LeafOperands)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Name the messages of a batch whose last leaves have at most `blocks` blocks."""

    blocks: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeafBatch:
    """Say how a batch is hashed, and where its leaves lie in the pool of all batches.

    `full` counts the full chunks of each message of `messages`; `leaves` is int64[count, leaves]
    for each.
    """

    messages: tuple[Messages, ...]
    full: tuple[int, ...]
    buckets: tuple[Bucket, ...]
    leaves: tuple[Rows, ...]
    rows: int
    operands: LeafOperands


def lay_leaves(leaf_hash: LeafHash, messages: Sequence[Messages], first: int) -> LeafBatch:
    """Lay out a batch whose leaves start at row `first` of the pool."""
    chunk = _chunk_bytes(leaf_hash)
    full = tuple(_full_chunks(chunk, each.length) for each in messages)
    leaves: list[list[Rows]] = []
    row = first
    for each, count in zip(messages, full, strict=True):
        leaves.append([row + np.arange(each.count * count).reshape(each.count, count)])
        row += each.count * count
    rests = [each.length - count * chunk for each, count in zip(messages, full, strict=True)]
    last = [index for index, rest in enumerate(rests) if rest or not full[index]]
    buckets = _buckets({index: leaf_hash.blocks(rests[index]) for index in last}, messages)
    lanes: list[LastLeaves] = []
    for bucket in buckets:
        for index in bucket.members:
            count = messages[index].count
            leaves[index].append(row + np.arange(count)[:, None])
            row += count
        counts = [messages[index].count for index in bucket.members]
        lengths, counters = (
            [values[index] for index in bucket.members] for values in (rests, full)
        )
        whole = [not count for count in counters]
        lanes.append(LastLeaves(*(_repeat(v, counts) for v in (lengths, counters, whole))))
    counters = [
        np.tile(np.arange(count, dtype=np.uint32), each.count)
        for each, count in zip(messages, full, strict=True)
    ]
    return LeafBatch(
        messages=tuple(messages),
        full=full,
        buckets=buckets,
        leaves=tuple(np.concatenate(parts, axis=1) for parts in leaves),
        rows=row - first,
        operands=LeafOperands(_joined(counters), tuple(lanes)),
    )


def hash_leaves(
    leaf_hash: LeafHash, batch: LeafBatch, words: Sequence[jax.Array], operands: LeafOperands
) -> jax.Array:
    """Hash the leaves of a batch to uint32[rows, 8].

    `words` has uint32[count, words] for each of its messages, zero after the last byte.
    """
    values: list[jax.Array] = []
    cut = _chunk_bytes(leaf_hash) // 4
    chunks = [
        array[:, : count * cut].reshape(-1, cut)
        for array, count in zip(words, batch.full, strict=True)
        if count
    ]
    if chunks:
        assert leaf_hash.chunks is not None  # of a hash without chunks none are counted
        values.append(leaf_hash.chunks.rows(_concatenated(chunks), operands.counters))
    rests = [array[:, count * cut :] for array, count in zip(words, batch.full, strict=True)]
    return _concatenated([*values, *hash_last_leaves(leaf_hash, batch, rests, operands)])


def hash_last_leaves(
    leaf_hash: LeafHash, batch: LeafBatch, rests: Sequence[jax.Array], operands: LeafOperands
) -> list[jax.Array]:
    """Hash the last leaves of a batch, one bucket after the other.

    `rests` has uint32[count, words] for each of its messages: what follows their full chunks.
    """
    values: list[jax.Array] = []
    for bucket, lanes in zip(batch.buckets, operands.buckets, strict=True):
        width = bucket.blocks * BLOCK_BYTES // 4
        padded = [
            jnp.pad(rests[index], ((0, 0), (0, width - rests[index].shape[1])))
            for index in bucket.members
        ]
        values.append(
            leaf_hash.last(_concatenated(padded), lanes.lengths, lanes.counters, lanes.whole)
        )
    return values


def _chunk_bytes(leaf_hash: LeafHash) -> int:
    """Return the bytes of a full chunk; 0 where a hash has no chunks."""
    return 0 if leaf_hash.chunks is None else leaf_hash.chunks.size


def _full_chunks(chunk: int, length: int) -> int:
    """Count full chunks; a message of one chunk has a last leaf alone, as it is its own root."""
    return length // chunk if 0 < chunk < length else 0


def _buckets(blocks: dict[int, int], messages: Sequence[Messages]) -> tuple[Bucket, ...]:
    """Put last leaves of nearly as many blocks together; the few of them all in one bucket."""
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for index, count in blocks.items():
        alike[count].append(index)
    lanes = {count: sum(messages[i].count for i in members) for count, members in alike.items()}
    small = [count for count in alike if count * lanes[count] < _OWN_BUCKET_BLOCKS]
    few = max(small, default=0) * sum(lanes[count] for count in small) < _OWN_BUCKET_BLOCKS
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for count, members in alike.items():
        if count in small:
            count = max(small) if few else 1 << (count - 1).bit_length()
        buckets[count] += members
    return tuple(Bucket(count, tuple(members)) for count, members in sorted(buckets.items()))


def _repeat(values: Sequence[int], counts: Sequence[int]) -> Any:
    return np.repeat(np.array(values, np.uint32), counts)


def _joined(counters: Sequence[Words]) -> Any:
    return np.concatenate([np.zeros(0, np.uint32), *counters])


def _concatenated(arrays: Sequence[jax.Array]) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)
