"""Compress BLAKE3 blocks inside a Pallas kernel, many chunks side by side.

Source: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), sections 2.1-2.4.
A word of the state is one array with one lane for each chunk, so nothing moves between lanes. The
order of the message's words is known at trace time in every round, so permuting them is free.

An accelerator's compiler keeps what unrolled rounds share in registers. XLA's fusion on a CPU
computes it again for every reader, about 100 times slower for each round; so what is interpreted
there runs the same arithmetic with one round as the body of a loop. (Without that fusion, XLA of
jax 0.10.2 gave wrong words, and that of 0.12 compiled for a minute.)
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.digest.kernels import (
    BLOCK_BYTES,
    CHUNK_BLOCKS,
    IV,
    PERMUTATION,
    ROUNDS,
    Flags,
    rotate_right,
)

# By an accelerator's compiler, or by Pallas' interpreter on any backend, for tests.
Execution: TypeAlias = Literal["compiled", "interpreted"]
Rounds: TypeAlias = Literal["unrolled", "rolled"]
Words: TypeAlias = tuple[jax.Array, ...]

_QUARTERS = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def rounds_of(execution: Execution) -> Rounds:
    """Return the form of the rounds that whoever executes a kernel can bear."""
    return "unrolled" if execution == "compiled" else "rolled"


def parameters(key: jax.Array, flags: jax.Array | int) -> jax.Array:
    """Join a first chaining value uint32[8] and flags to the uint32[9] that a kernel reads."""
    return jnp.concatenate([key, jnp.reshape(jnp.asarray(flags, jnp.uint32), (1,))])


def _round(state: Sequence[jax.Array], words: Sequence[jax.Array]) -> Words:
    """Run one round: four columns, then four diagonals."""
    v = list(state)
    # The message's word is added first: it is at hand early, v[b] has only just been made.
    for i, (a, b, c, d) in enumerate(_QUARTERS):
        v[a] = v[a] + words[2 * i] + v[b]
        v[d] = rotate_right(v[d] ^ v[a], 16)
        v[c] = v[c] + v[d]
        v[b] = rotate_right(v[b] ^ v[c], 12)
        v[a] = v[a] + words[2 * i + 1] + v[b]
        v[d] = rotate_right(v[d] ^ v[a], 8)
        v[c] = v[c] + v[d]
        v[b] = rotate_right(v[b] ^ v[c], 7)
    return tuple(v)


def _permuted(words: Sequence[jax.Array]) -> Words:
    return tuple(words[i] for i in PERMUTATION)


def compress_lanes(
    value: Sequence[jax.Array],
    words: Sequence[jax.Array],
    *,
    counter: jax.Array,
    flags: jax.Array,
    rounds: Rounds,
) -> Words:
    """Compress one full block of 64 bytes in every lane.

    `value` is 8 arrays and `words` 16, uint32 of `counter`'s shape; `flags` is a uint32 scalar.
    The counter's high word is 0: no message has 2^32 chunks, which would be 4 TiB. Returns the 8
    arrays of the chaining value, which are the first 32 bytes of output if ROOT is among the flags.
    """
    lanes = counter.shape
    constants = [jnp.full(lanes, int(word), jnp.uint32) for word in IV[:4]]
    zero, length = (jnp.full(lanes, word, jnp.uint32) for word in (0, BLOCK_BYTES))
    state = (*value, *constants, counter, zero, length, jnp.broadcast_to(flags, lanes))
    message = tuple(words)
    if rounds == "rolled":

        def one_round(_: jax.Array, carry: tuple[Words, Words]) -> tuple[Words, Words]:
            return _round(*carry), _permuted(carry[1])

        state, _ = lax.fori_loop(jnp.int32(0), jnp.int32(ROUNDS), one_round, (state, message))
    else:
        for _ in range(ROUNDS):
            state, message = _round(state, message), _permuted(message)
    return tuple(state[i] ^ state[i + 8] for i in range(8))


def hash_chunk_lanes(
    block: Callable[[jax.Array], Sequence[jax.Array]],
    key: Sequence[jax.Array],
    *,
    counter: jax.Array,
    flags: jax.Array,
    rounds: Rounds,
) -> Words:
    """Hash one full chunk of 1 KiB in every lane; `block(i)` gives the 16 words of block i.

    `key` is 8 uint32 scalars, `flags` one; CHUNK_START and CHUNK_END are put in here.
    """

    def one_block(i: jax.Array, value: Words) -> Words:
        start = jnp.where(i == 0, jnp.uint32(Flags.CHUNK_START), jnp.uint32(0))
        end = jnp.where(i == CHUNK_BLOCKS - 1, jnp.uint32(Flags.CHUNK_END), jnp.uint32(0))
        now = flags | start | end
        return compress_lanes(value, block(i), counter=counter, flags=now, rounds=rounds)

    first = tuple(jnp.broadcast_to(word, counter.shape) for word in key)
    return lax.fori_loop(jnp.int32(0), jnp.int32(CHUNK_BLOCKS), one_block, first)
