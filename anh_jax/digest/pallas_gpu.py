"""Hash the chunks and parents of BLAKE3 on a GPU, in kernels that Triton compiles.

One thread hashes one chunk: 16 words of state and 16 of the block stay in its registers. A program
reads the block of all its chunks as one tile (chunks, 16), which Triton loads with 16 bytes a
thread: four threads read the 64 bytes of one chunk, whole 32-byte sectors. (Each thread reading
its own words one by one would take 16 loads that touch 32 cache lines each, more than the
arithmetic takes.) Taking the tile apart into words moves it between threads through shared
memory; a program is one warp, so that this needs no barrier.

bench/digest_kernels.py lists what Triton makes of it. For compute capability 9.0, a block of 64
bytes is 4 loads of 16 bytes, 4 stores to and 4 loads from shared memory, and about 700 integer
instructions, in 62 registers without spills: 32 warps fit a multiprocessor.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from anh_jax.digest.kernels import BLOCK_WORDS, Kernels
from anh_jax.digest.pallas_blake3 import (
    Execution,
    Rounds,
    Words,
    compress_lanes,
    hash_chunk_lanes,
    parameters,
    rounds_of,
)
from anh_jax.digest.pallas_gpu_blocks import columns, store
from anh_jax.digest.pallas_gpu_tensors import tensor_chunks

# Chunks a program hashes, one a thread, and its warps.
PROGRAM_CHUNKS = 32
PROGRAM_WARPS = 1
# Half of the threads that 132 multiprocessors hold: fewer would leave them idle in wide levels of
# a tree, more would pad the narrow ones.
TREE_LANES = 1 << 16


def _places(chunks: int) -> jax.Array:
    return pl.program_id(0) * chunks + lax.iota(jnp.int32, chunks)


def _block(words: jax.Ref, rows: jax.Array, number: jax.Array) -> Words:
    at = number * BLOCK_WORDS + lax.iota(jnp.int32, BLOCK_WORDS)
    return columns(plgpu.load(words.at[rows[:, None], at[None, :]]))


def _chunks_kernel(
    words: jax.Ref,
    counters: jax.Ref,
    mode: jax.Ref,
    out: jax.Ref,
    *,
    chunks: int,
    rounds: Rounds,
) -> None:
    places = _places(chunks)
    rows = jnp.minimum(places, words.shape[0] - 1)  # what pads the last program repeats a row
    value = hash_chunk_lanes(
        lambda number: _block(words, rows, number),
        [mode[j] for j in range(8)],
        counter=plgpu.load(counters.at[rows]),
        flags=mode[8],
        rounds=rounds,
    )
    store(out, (places,), value)


def _parents_kernel(
    words: jax.Ref, mode: jax.Ref, out: jax.Ref, *, chunks: int, rounds: Rounds
) -> None:
    places = _places(chunks)
    rows = jnp.minimum(places, words.shape[0] - 1)
    value = compress_lanes(
        [jnp.full((chunks,), mode[j]) for j in range(8)],
        _block(words, rows, jnp.int32(0)),
        counter=jnp.zeros((chunks,), jnp.uint32),
        flags=mode[8],
        rounds=rounds,
    )
    store(out, (places,), value)


def gpu_kernels(
    execution: Execution = "compiled",
    *,
    chunks: int = PROGRAM_CHUNKS,
    warps: int = PROGRAM_WARPS,
) -> Kernels:
    """Return the kernels for a GPU; a program hashes `chunks` chunks (a power of two) in `warps`.

    Other sizes than the default are for measuring (bench/digest_device.py).
    """

    def call(kernel: Callable[..., None], name: str, *operands: jax.Array) -> jax.Array:
        n = operands[0].shape[0]
        programs = pl.cdiv(n, chunks)
        out = pl.pallas_call(
            functools.partial(kernel, chunks=chunks, rounds=rounds_of(execution)),
            # Whole programs, so that no store needs a mask; the rest is cut off.
            out_shape=jax.ShapeDtypeStruct((programs * chunks, 8), jnp.uint32),
            grid=(programs,),
            compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
            interpret=execution == "interpreted",
            name=name,
        )(*operands)
        return out[:n]

    def hash_chunks(words: jax.Array, counters: jax.Array, key: jax.Array, flags: int) -> jax.Array:
        mode = parameters(key, flags)
        return call(_chunks_kernel, "blake3_chunks", words, counters, mode)

    def hash_parents(words: jax.Array, key: jax.Array, flags: jax.Array) -> jax.Array:
        return call(_parents_kernel, "blake3_parents", words, parameters(key, flags))

    in_place = functools.partial(tensor_chunks, execution=execution, chunks=chunks, warps=warps)
    return Kernels(hash_chunks, hash_parents, TREE_LANES, in_place)
