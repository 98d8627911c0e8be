"""The hot inner operations of BLAKE3 on a device, and their form for any backend XLA compiles for.

Source: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), sections 2.1-2.5.
Words are uint32, read little endian from the message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from anh_jax.digest.block_cut import BlockCut

# A scalar of the program, known or traced, or one word per lane.
Word: TypeAlias = jax.Array | np.uint32

# Tensors, their cut, the first block, key and flags, as `Kernels` has them.
TensorChunks: TypeAlias = Callable[
    [Sequence[jax.Array], "BlockCut", jax.Array, jax.Array, int], jax.Array
]

CHUNK_BYTES = 1024
CHUNK_WORDS = 256
BLOCK_BYTES = 64
CHUNK_BLOCKS = CHUNK_BYTES // BLOCK_BYTES
BLOCK_WORDS = 16
IV = np.array(
    (
        0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
        0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
    ),
    np.uint32,
)  # fmt: skip
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
ROUNDS = 7


class Flags(IntFlag):
    """Say what a block is: its place in a chunk or in the tree, and the mode of the hash."""

    CHUNK_START = 1
    CHUNK_END = 2
    PARENT = 4
    ROOT = 8
    DERIVE_KEY_CONTEXT = 32
    DERIVE_KEY_MATERIAL = 64


@dataclass(frozen=True, slots=True)
class Kernels:
    """Hold the operations in which nearly all time of a digest goes; all trace under jit.

    `chunks(words, counters, key, flags) -> values`: the chaining values uint32[n, 8] of n full
    chunks uint32[n, 256], none of which is the root. `counters` uint32[n] are their places in
    their messages, `key` uint32[8] the first chaining value (an array, perhaps traced), `flags` the
    flags of every block (an int known at compile time); CHUNK_START and CHUNK_END are added inside.

    `parents(words, key, flags) -> values`: one compression of each block of uint32[n, 16], counter
    0, 64 bytes, to uint32[n, 8]. `flags` is a uint32 scalar and may be traced, as may `key`: one
    compiled instance serves every level of a tree.

    `tensor_chunks(tensors, cut, first, key, flags) -> values`, or None where there is none: what
    `chunks` gives for the full chunks of all tiles of tensors that are cut alike, in the order of
    tensors, tiles, chunks, but read where they lie. `tensors` are row-major arrays of one dtype of
    1, 2 or 4 bytes, `cut` is known at compile time, and `first` int32[] is the block of each array
    at which its first tile begins.

    n is any positive number. `lanes` is how many compressions at a time keep the backend busy:
    levels of a tree are padded to it, so it costs time where it is larger than needed.
    """

    chunks: Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]
    parents: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    lanes: int
    tensor_chunks: TensorChunks | None = None


def _schedule() -> np.ndarray:
    """Return which message word each round takes: int32[7, 16], in groups of four quarter-rounds.

    The groups: first words of the columns, second words of the columns, the same of the diagonals.
    """
    groups = np.array((0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15))
    order, rounds = np.arange(16), []
    for _ in range(ROUNDS):
        rounds.append(order[groups])
        order = order[np.array(PERMUTATION)]
    return np.stack(rounds).astype(np.int32)


_SCHEDULE = _schedule()


def rotate_right(words: jax.Array, count: int) -> jax.Array:
    """Rotate each uint32 right by 1 to 31 bits."""
    return (words >> np.uint32(count)) | (words << np.uint32(32 - count))


def compress(
    value: jax.Array, block: jax.Array, counter: Word, length: Word, flags: Word
) -> jax.Array:
    """Compress one block on each of n lanes: uint32[8, n], uint32[16, n] -> uint32[8, n].

    `counter`, `length` and `flags` are uint32[n] or scalars. The rounds stay a loop: XLA on CPU
    computes shared values again in every consumer, about a hundred times more for each round that
    is unrolled. Four lanes of the state are one array, so a round is few operations.
    """
    lanes = block.shape[1]
    last = [jnp.broadcast_to(word, (lanes,)) for word in (counter, _ZERO, length, flags)]
    constants = jnp.broadcast_to(jnp.asarray(IV[:4])[:, None], (4, lanes))
    schedule = jnp.asarray(_SCHEDULE)

    def one_round(number: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        words = block[schedule[number]]
        a, b, c, d = _quarter_rounds(rows, words[0:4], words[4:8])
        diagonal = (a, jnp.roll(b, -1, 0), jnp.roll(c, -2, 0), jnp.roll(d, -3, 0))
        a, b, c, d = _quarter_rounds(diagonal, words[8:12], words[12:16])
        return a, jnp.roll(b, 1, 0), jnp.roll(c, 2, 0), jnp.roll(d, 3, 0)

    rows = (value[:4], value[4:], constants, jnp.stack(last))
    a, b, c, d = lax.fori_loop(0, ROUNDS, one_round, rows)
    return jnp.concatenate([a ^ c, b ^ d])


_ZERO = np.uint32(0)


def _quarter_rounds(
    rows: tuple[jax.Array, ...], first: jax.Array, second: jax.Array
) -> tuple[jax.Array, ...]:
    a, b, c, d = rows
    a = a + b + first
    d = rotate_right(d ^ a, 16)
    c = c + d
    b = rotate_right(b ^ c, 12)
    a = a + b + second
    d = rotate_right(d ^ a, 8)
    c = c + d
    return a, rotate_right(b ^ c, 7), c, d


def hash_chunks(
    words: jax.Array,
    lengths: jax.Array,
    counters: jax.Array,
    key: jax.Array,
    flags: Word,
    last: Word,
) -> jax.Array:
    """Return the chaining values uint32[n, 8] of chunks uint32[n, 16 blocks] of any lengths.

    `lengths` uint32[n] are in bytes, up to 64 per block of `words`, which are zero from there on;
    `flags` is one scalar or uint32[n], and `last` is added to it at the end of a chunk.
    """
    lanes, width = words.shape
    blocks = words.T.reshape(width // BLOCK_WORDS, BLOCK_WORDS, lanes)
    ends = jnp.maximum(lengths, 1) - 1 >> 6  # a chunk without bytes has one block

    def one_block(number: jax.Array, value: jax.Array) -> jax.Array:
        at = number.astype(jnp.uint32)
        start = jnp.where(at == 0, np.uint32(Flags.CHUNK_START), _ZERO)
        end = jnp.where(at == ends, np.uint32(Flags.CHUNK_END) | last, _ZERO)
        length = jnp.minimum(lengths - at * BLOCK_BYTES, BLOCK_BYTES)
        block = lax.dynamic_index_in_dim(blocks, number, 0, keepdims=False)
        new = compress(value, block, counters, length, flags | start | end)
        return jnp.where(at <= ends, new, value)

    first = jnp.broadcast_to(key[:, None], (8, lanes))
    return lax.fori_loop(0, width // BLOCK_WORDS, one_block, first).T


def in_slabs(operation: Callable[..., jax.Array], lanes: int, *arrays: jax.Array) -> jax.Array:
    """Hash rows to uint32[n, 8], at most `lanes` rows at a time, to bound temporary memory.

    `arrays` share their leading extent n.
    """
    count = arrays[0].shape[0]
    if count <= lanes:
        return operation(*arrays)

    def one_slab(slab: jax.Array, result: jax.Array) -> jax.Array:
        # The last slab overlaps the one before: padding the arrays would copy them.
        start = jnp.minimum(slab * lanes, count - lanes)
        rows = operation(*(lax.dynamic_slice_in_dim(array, start, lanes) for array in arrays))
        return lax.dynamic_update_slice_in_dim(result, rows, start, 0)

    slabs = -(-count // lanes)
    return lax.fori_loop(0, slabs, one_slab, jnp.zeros((count, 8), jnp.uint32))


def xla_kernels(lanes: int = 1024) -> Kernels:
    """Return the kernels that run on any backend. On CPU, 1024 lanes stay in the cache."""

    def chunks(words: jax.Array, counters: jax.Array, key: jax.Array, flags: int) -> jax.Array:
        full, every = np.uint32(CHUNK_BYTES), np.uint32(flags)

        def one_slab(words: jax.Array, counters: jax.Array) -> jax.Array:
            lengths = jnp.broadcast_to(full, counters.shape)
            return hash_chunks(words, lengths, counters, key, every, _ZERO)

        return in_slabs(one_slab, lanes, words, counters)

    def parents(words: jax.Array, key: jax.Array, flags: jax.Array) -> jax.Array:
        def one_slab(words: jax.Array) -> jax.Array:
            value = jnp.broadcast_to(key[:, None], (8, words.shape[0]))
            return compress(value, words.T, _ZERO, np.uint32(BLOCK_BYTES), flags).T

        return in_slabs(one_slab, lanes, words)

    return Kernels(chunks, parents, lanes)
