"""Hash the chunks and parents of BLAKE3 on a TPU, in kernels that Mosaic compiles.

A word of the state of 2,048 chunks is (16, 128): two vector registers, whose operations fill the
cycles in which one alone would wait for its own last result. The grid streams whole rows of words
into VMEM, two steps' worth; there each (128, 256) piece is transposed, so that a message word is a
row with one chunk a lane, and no separate pass of XLA's moves the state.

bench/digest_kernels.py lists what libtpu makes of it. For v5e, a block of 64 bytes of 2,048 chunks
is 656 instruction bundles, whose slots for vector arithmetic are 95 % full; what of the
transposition does not hide there adds a tenth.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from anh_jax.digest.kernels import BLOCK_WORDS, CHUNK_WORDS, Kernels
from anh_jax.digest.pallas_blake3 import (
    Execution,
    Rounds,
    Words,
    compress_lanes,
    hash_chunk_lanes,
    parameters,
    rounds_of,
)

LANES = 128
_HALF = CHUNK_WORDS // 2
_HALF_BLOCKS = _HALF // BLOCK_WORDS
STATE_ROWS = 16
# Four grid steps: a level of a tree that is padded to it costs a few microseconds.
TREE_LANES = 4 * STATE_ROWS * LANES


def _chunks_kernel(
    mode: jax.Ref,
    words: jax.Ref,
    counters: jax.Ref,
    out: jax.Ref,
    columns: jax.Ref,
    *,
    rows: int,
    rounds: Rounds,
) -> None:
    def turn(piece: int | jax.Array, first: int) -> None:
        # Word w of the chunks of all pieces goes to rows [w * rows, (w + 1) * rows).
        taken = words[pl.ds(piece * LANES, LANES), pl.ds(first, _HALF)]
        columns[pl.ds(first * rows + piece, _HALF, stride=rows), :] = taken.T

    for piece in range(rows):
        turn(piece, 0)

    def block(number: jax.Array) -> Words:
        first = number * BLOCK_WORDS
        taken = tuple(columns[pl.ds((first + j) * rows, rows), :] for j in range(BLOCK_WORDS))
        # The second half is turned while the first is hashed, in slots that arithmetic leaves free.
        # Later blocks turn it again, to the same words: cheaper than a loop without.
        pieces = rows // _HALF_BLOCKS
        for piece in range(pieces):
            turn(number % _HALF_BLOCKS * pieces + piece, _HALF)
        return taken

    value = hash_chunk_lanes(
        block,
        [mode[j] for j in range(8)],
        counter=counters[...],
        flags=mode[8],
        rounds=rounds,
    )
    for j, word in enumerate(value):
        out[j] = word


def _parents_kernel(
    mode: jax.Ref, words: jax.Ref, out: jax.Ref, *, rows: int, rounds: Rounds
) -> None:
    lanes = (rows, LANES)
    value = compress_lanes(
        [jnp.full(lanes, mode[j]) for j in range(8)],
        [words[j] for j in range(BLOCK_WORDS)],
        counter=jnp.zeros(lanes, jnp.uint32),
        flags=mode[8],
        rounds=rounds,
    )
    for j, word in enumerate(value):
        out[j] = word


def tpu_kernels(execution: Execution = "compiled", *, rows: int = STATE_ROWS) -> Kernels:
    """Return the kernels for a TPU; a grid step hashes `rows` * 128 chunks (`rows`: 8, 16 or 32).

    Other sizes than the default are for measuring (bench/digest_device.py).
    """
    step = rows * LANES
    rounds = rounds_of(execution)
    smem = pl.BlockSpec(memory_space=pltpu.SMEM)
    # The steps are independent: a chip of two cores shares them.
    compiler = pltpu.CompilerParams(dimension_semantics=(pltpu.PARALLEL,))

    def values(steps: int) -> tuple[jax.ShapeDtypeStruct, pl.BlockSpec]:
        whole = jax.ShapeDtypeStruct((8, steps * rows, LANES), jnp.uint32)
        return whole, pl.BlockSpec((8, rows, LANES), lambda i: (0, i, 0))

    def hash_chunks(words: jax.Array, counters: jax.Array, key: jax.Array, flags: int) -> jax.Array:
        n = words.shape[0]
        steps = pl.cdiv(n, step)
        if n < step:
            words = jnp.pad(words, ((0, step - n), (0, 0)))
        padded = jnp.pad(counters, (0, steps * step - n)).reshape(steps * rows, LANES)
        out_shape, out_specs = values(steps)
        out = pl.pallas_call(
            functools.partial(_chunks_kernel, rows=rows, rounds=rounds),
            out_shape=out_shape,
            grid=(steps,),
            in_specs=[
                smem,
                # The last step may reach beyond n: what it reads there, it hashes for nobody.
                pl.BlockSpec((step, CHUNK_WORDS), lambda i: (i, 0)),
                pl.BlockSpec((rows, LANES), lambda i: (i, 0)),
            ],
            out_specs=out_specs,
            scratch_shapes=[pltpu.VMEM((CHUNK_WORDS * rows, LANES), jnp.uint32)],
            compiler_params=compiler,
            interpret=execution == "interpreted",
            name="blake3_chunks",
        )(parameters(key, flags), words, padded)
        return out.reshape(8, steps * step).T[:n]

    def hash_parents(words: jax.Array, key: jax.Array, flags: jax.Array) -> jax.Array:
        n = words.shape[0]
        steps = pl.cdiv(n, step)
        # Words first: rows of 16 words would be padded to 128 lanes.
        columns = jnp.pad(words.T, ((0, 0), (0, steps * step - n)))
        out_shape, out_specs = values(steps)
        out = pl.pallas_call(
            functools.partial(_parents_kernel, rows=rows, rounds=rounds),
            out_shape=out_shape,
            grid=(steps,),
            in_specs=[smem, pl.BlockSpec((BLOCK_WORDS, rows, LANES), lambda i: (0, i, 0))],
            out_specs=out_specs,
            compiler_params=compiler,
            interpret=execution == "interpreted",
            name="blake3_parents",
        )(parameters(key, flags), columns.reshape(BLOCK_WORDS, steps * rows, LANES))
        return out.reshape(8, steps * step).T[:n]

    return Kernels(hash_chunks, hash_parents, TREE_LANES)
