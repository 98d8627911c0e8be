"""Hash the chunks of tensors where they lie, in a GPU kernel that Triton compiles.

One launch hashes many tensors that are cut alike: one tensor of a few megabytes would leave most
of a GPU idle until its last chunk is done. Which tensor a program reads from is a branch around
the loads of a block, the same for the whole warp. Elements become words in registers, so that
nothing is cast in memory.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from anh_jax.digest.block_cut import BlockCut
from anh_jax.digest.kernels import BLOCK_BYTES, CHUNK_BLOCKS
from anh_jax.digest.pallas_blake3 import (
    Execution,
    Rounds,
    hash_chunk_lanes,
    parameters,
    rounds_of,
)
from anh_jax.digest.pallas_gpu_blocks import columns, store

_KEY_WORDS = 8


def tensor_chunks(
    tensors: Sequence[jax.Array],
    cut: BlockCut,
    first: jax.Array,
    key: jax.Array,
    flags: int,
    *,
    execution: Execution,
    chunks: int,
    warps: int,
) -> jax.Array:
    """Hash the full chunks of tensors to uint32[n, 8], as `Kernels.tensor_chunks` says."""
    each = cut.tiles * cut.chunks
    programs = pl.cdiv(each, chunks)
    mode = jnp.concatenate([parameters(key, flags), first.astype(jnp.uint32).reshape(1)])
    out = pl.pallas_call(
        functools.partial(_kernel, cut=cut, chunks=chunks, rounds=rounds_of(execution)),
        # Whole programs, so that no store needs a mask; the rest is cut off.
        out_shape=jax.ShapeDtypeStruct((len(tensors), programs * chunks, 8), jnp.uint32),
        grid=(programs, len(tensors)),
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
        interpret=execution == "interpreted",
        name="blake3_tensor_chunks",
    )(mode, *(_in_blocks(each, execution) for each in tensors))
    return out[:, :each].reshape(len(tensors) * each, 8)


def _in_blocks(tensor: jax.Array, execution: Execution) -> jax.Array:
    """See an array as rows of 64 bytes; nothing is moved."""
    if execution == "interpreted" and tensor.dtype.itemsize == 2:
        # XLA on a CPU takes bfloat16 through float32, which changes some NaNs.
        tensor = lax.bitcast_convert_type(tensor, jnp.uint16)
    return tensor.reshape(-1, BLOCK_BYTES // tensor.dtype.itemsize)


def _kernel(mode: jax.Ref, *refs: jax.Ref, cut: BlockCut, chunks: int, rounds: Rounds) -> None:
    tensors, out = refs[:-1], refs[-1]
    number = pl.program_id(1)
    places = pl.program_id(0) * chunks + lax.iota(jnp.int32, chunks)
    # What pads the last program of a tensor repeats a chunk.
    lanes = jnp.minimum(places, cut.tiles * cut.chunks - 1)
    tile = lax.div(lanes, jnp.int32(cut.chunks))
    chunk = lanes - tile * cut.chunks
    start = mode[_KEY_WORDS + 1].astype(jnp.int32) + cut.tile_place(tile)
    place = _block_places(cut, start, chunk)
    value = hash_chunk_lanes(
        lambda block: columns(_words(_load(tensors, number, place(block)))),
        [mode[j] for j in range(_KEY_WORDS)],
        counter=chunk.astype(jnp.uint32),
        flags=mode[_KEY_WORDS],
        rounds=rounds,
    )
    store(out, (number, places), value)


def _block_places(
    cut: BlockCut, start: jax.Array, chunk: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Return where block i of each lane's chunk lies, from where its tile starts.

    A chunk begins in one run and passes a few ends of runs. How far each end throws it is known
    before the loop over blocks, which then only compares and adds.
    """
    run = cut.tile[-1]
    common = math.gcd(run, CHUNK_BLOCKS)
    passed = (run - common + CHUNK_BLOCKS - 1) // run
    row = lax.div(chunk * CHUNK_BLOCKS, jnp.int32(run))
    # Where runs divide chunks every lane is at the same block of its run.
    within = 0 if common == run else chunk * CHUNK_BLOCKS - row * run
    rows = [cut.run_place(row + number) for number in range(passed + 1)]
    base = start + rows[0] + within
    two = len(cut.tile) == 2
    gaps = [
        cut.strides[0] - run if two else after - before - run
        for before, after in zip(rows, rows[1:], strict=False)
    ]

    def place(block: jax.Array) -> jax.Array:
        at = base + block
        for number, gap in enumerate(gaps, 1):
            passed_it = within + block >= number * run
            at = at + jnp.where(passed_it, jnp.int32(gap), jnp.int32(0))
        return at

    return place


def _load(tensors: Sequence[jax.Ref], number: jax.Array, rows: jax.Array) -> jax.Array:
    """Load one row of 64 bytes for each lane from tensor `number`."""
    if len(tensors) == 1:
        at = lax.iota(jnp.int32, tensors[0].shape[1])
        return plgpu.load(tensors[0].at[rows[:, None], at[None, :]])
    half = len(tensors) // 2
    return lax.cond(
        number < half,
        lambda: _load(tensors[:half], number, rows),
        lambda: _load(tensors[half:], number - half, rows),
    )


def _words(elements: jax.Array) -> jax.Array:
    """Join neighbours of a tile (chunks, 64 bytes) to words uint32 (chunks, 16), lowest first."""
    bits = lax.bitcast_convert_type(elements, f"uint{8 * elements.dtype.itemsize}")
    words, width = bits.astype(jnp.uint32), 8 * elements.dtype.itemsize
    while width < 32:
        pairs = words.reshape(words.shape[0], words.shape[1] // 2, 2)
        low, high = (each.reshape(each.shape[:2]) for each in jnp.split(pairs, 2, axis=2))
        words = low | (high << jnp.uint32(width))
        width *= 2
    return words
