"""Claim: hashing state on an accelerator runs at the speed of its integer units.

Runs on whatever accelerator JAX sees, from source with `PYTHONPATH=.` and jax alone; the whole
state and the step ratio want the packages `blake3` and `msgspec` too, and are left out, with the
reason, where they are missing. Every rate is of kernels whose bits were compared first. On a CPU it
says so, and times XLA's kernels at a small size.

    PYTHONPATH=. python bench/digest_device.py
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "")  # before `reporting` settles for the CPU

import jax
import jax.numpy as jnp
import numpy as np
from device_state import time_state
from reporting import Report, Spread, parser, say

from anh_jax.digest.blake3_xla import derive_key_mode, hash_messages
from anh_jax.digest.block_cut import BlockCut, block_cut
from anh_jax.digest.in_place_check import find_fault_in_place
from anh_jax.digest.kernels import CHUNK_BYTES, Kernels, xla_kernels
from anh_jax.digest.roofline import BLAKE3_OPS, BLOCK_BYTES, Chip, bound, chip_of
from attest.blake3_pure import blake3_derive_key
from attest.digest_tree import tile_dims, tile_grid

CLAIM = "device digest: bytes per second of the kernels, share of the rooflines, time of a state"
_CONTEXT = "anh bench"
_TILE_BYTES = 16384


@dataclass(frozen=True)
class Variant:
    """Kernels under a name."""

    name: str
    build: Callable[[], Kernels]


def main() -> None:
    options = parser(CLAIM)
    options.add_argument("--mib", type=int, default=1024, help="MiB hashed in one call")
    options = options.parse_args()
    report, device = Report(CLAIM), jax.devices()[0]
    here = device.platform in ("gpu", "tpu")
    mib = options.mib if here else 4
    mib = min(mib, 64) if options.quick else mib
    rounds = 3 if options.quick or not here else 15
    chip = chip_of(device.device_kind)
    say(f"jax {jax.__version__} on {device.device_kind}")
    if not here:
        say("no accelerator is here: only XLA's kernels, on the CPU, at a small size")
    if chip is not None:
        say(f"roofline of {chip.name} ({', '.join(chip.assumptions)}):")
        say(f"  with the tree {bound(chip, 'blake3') / 1e12:.3f} TB/s of state")
    best = _kernels(device.platform, mib, rounds, chip, report)
    _tiles(best, mib, rounds, chip, report)
    best = _in_place(best, rounds, chip, report)
    if here:
        time_state(best, rounds, report)
    report.close(options.form)


def _variants(platform: str) -> list[Variant]:
    """List the kernels of a platform, the shipped ones first, XLA's last."""
    xla = Variant(
        "XLA, rolled", lambda: xla_kernels() if platform == "cpu" else xla_kernels(1 << 16)
    )
    if platform == "gpu":
        from anh_jax.digest.pallas_gpu import gpu_kernels

        sizes = ((32, 1), (64, 2), (128, 4), (256, 8), (64, 1))
        return [
            Variant(
                f"Triton, {c} chunks, {w} warps", functools.partial(gpu_kernels, chunks=c, warps=w)
            )
            for c, w in sizes
        ] + [xla]
    if platform == "tpu":
        from anh_jax.digest.pallas_tpu import tpu_kernels

        return [
            Variant(
                f"Mosaic, {128 * rows} chunks a step", functools.partial(tpu_kernels, rows=rows)
            )
            for rows in (16, 8, 32)
        ] + [xla]
    return [xla]


def _timed(call: Callable[..., Any], rounds: int, *arguments: Any) -> Spread:
    """Return the seconds of one call: the median of rounds of five, dispatched back to back."""
    jax.block_until_ready(call(*arguments))
    calls, seconds = 5, list[float]()
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            result = call(*arguments)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - start) / calls)
    return Spread.of(seconds)


def _random_words(rows: int, columns: int) -> jax.Array:
    return jax.jit(lambda key: jax.random.bits(key, (rows, columns), jnp.uint32))(jax.random.key(0))


def _wrong(kernels: Kernels) -> str | None:
    """Compare kernels with the pure Python BLAKE3 over one message of 100 chunks."""
    words = np.random.default_rng(1).integers(0, 2**32, 100 * CHUNK_BYTES // 4, np.uint32)
    mode = derive_key_mode(_CONTEXT)
    digest = jax.jit(lambda w: hash_messages(w, 100 * CHUNK_BYTES, mode, kernels))(words[None])
    right = blake3_derive_key(_CONTEXT, words.tobytes())
    return None if np.asarray(digest)[0].tobytes() == right else "WRONG BITS"


def _kernels(platform: str, mib: int, rounds: int, chip: Chip | None, report: Report) -> Kernels:
    """Time each variant's chunks; return the fastest that is right."""
    chunks = mib * 1024
    words = _random_words(chunks, CHUNK_BYTES // 4)
    counters, mode = jnp.zeros(chunks, jnp.uint32), derive_key_mode(_CONTEXT)
    size = chunks * CHUNK_BYTES
    copy = _timed(jax.jit(lambda w: w ^ jnp.uint32(1)), rounds, words)
    rows = [["read and written once", f"{2 * size / copy.median / 1e9:.1f}", "", "", ""]]
    rates: list[tuple[float, Kernels]] = []
    for variant in _variants(platform):
        say(variant.name)
        try:
            kernels = variant.build()
            fault = _wrong(kernels)
            hashed = jax.jit(functools.partial(_chunk_values, kernels, mode.flags))
            spread = None if fault else _timed(hashed, rounds, words, counters, mode.key)
        except Exception as error:  # a variant that does not compile is a row of the table
            fault, spread = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}", None
        if spread is None:
            rows.append([variant.name, fault or "", "", "", ""])
            continue
        rate = size / spread.median
        rates.append((rate, kernels))
        quartiles = f"{size / spread.high / 1e9:.1f} to {size / spread.low / 1e9:.1f}"
        rows.append([variant.name, f"{rate / 1e9:.1f}", quartiles, *_shares(rate, chip)])
        report.figure(f"chunks, {variant.name}", rate / 1e9, "GB/s")
    header = ["chunks of 1 KiB", "GB/s", "quartiles", "of HBM", "of the ALU roofline"]
    report.table(f"{mib} MiB in one call, {rounds} rounds", header, rows)
    if not rates:
        raise SystemExit("digest_device: no kernels are right on this device")
    return max(rates, key=lambda each: each[0])[1]


def _chunk_values(
    kernels: Kernels, flags: int, words: jax.Array, counters: jax.Array, key: jax.Array
) -> jax.Array:
    return kernels.chunks(words, counters, key, flags)


def _shares(rate: float, chip: Chip | None) -> tuple[str, str]:
    """Return a rate's share of the HBM's, and of the integer units' for chunks without a tree."""
    if chip is None:
        return "", ""
    alu = chip.int32_ops_per_s / BLAKE3_OPS[chip.platform].total * BLOCK_BYTES
    return f"{100 * rate / chip.hbm_bytes_per_s:.1f} %", f"{100 * rate / alu:.1f} %"


def _tiles(kernels: Kernels, mib: int, rounds: int, chip: Chip | None, report: Report) -> None:
    """Time tiles of 16 KiB: chunks, parents and roots."""
    words = _random_words(mib * 1024 * 1024 // _TILE_BYTES, _TILE_BYTES // 4)
    mode = derive_key_mode(_CONTEXT)
    hashed = jax.jit(lambda w: hash_messages(w, _TILE_BYTES, mode, kernels))
    seconds = _timed(hashed, rounds, words).median
    rate = mib * 2**20 / seconds
    share = "" if chip is None else f"{100 * rate / bound(chip, 'blake3'):.1f} % of its roofline"
    row = [f"{_TILE_BYTES // 1024} KiB", f"{1e3 * seconds:.3f}", f"{rate / 1e9:.1f}", share]
    report.table("tiles with their trees", ["tile", "ms", "GB/s", ""], [row])
    report.figure("tiles of 16 KiB", rate / 1e9, "GB/s")


def _in_place(kernels: Kernels, rounds: int, chip: Chip | None, report: Report) -> Kernels:
    """Time chunks read where tensors lie; return the kernels, without this if its bits differ."""
    if kernels.tensor_chunks is None:
        return kernels
    fault = find_fault_in_place(kernels, jax.devices()[0])
    if fault is not None:
        say(f"reading tensors in place {fault}")
        return replace(kernels, tensor_chunks=None)
    mode, first = derive_key_mode(_CONTEXT), jnp.int32(0)
    rows = list[list[str]]()
    # Runs of 576 bytes, of 512, of 192 (an odd vocabulary), and of 768 in half as many elements.
    for shape, dtype, count in (
        ((768, 2304), "float32", 36),
        ((4096, 4096), "float32", 8),
        ((50257, 768), "float32", 3),
        ((768, 3072), "bfloat16", 36),
    ):
        itemsize = jnp.dtype(dtype).itemsize
        grid = tile_grid(shape, itemsize)
        cut = block_cut(shape, tile_dims(shape, grid), grid, itemsize)
        if cut is None:
            raise SystemExit(f"digest_device: {shape} of {dtype} cannot be read in place")
        make = jax.jit(lambda n, s=shape, d=dtype: jax.random.normal(jax.random.key(n), s, d))
        tensors = [make(number) for number in range(count)]
        hashed = jax.jit(functools.partial(_values_in_place, kernels, cut, mode.flags))
        size = count * cut.tiles * cut.chunks * CHUNK_BYTES
        spread = _timed(hashed, rounds, tensors, first, mode.key)
        rate, name = size / spread.median, f"{count} of {shape} {dtype}"
        quartiles = f"{size / spread.high / 1e9:.1f} to {size / spread.low / 1e9:.1f}"
        rows.append([name, f"{rate / 1e9:.1f}", quartiles, *_shares(rate, chip)])
        report.figure(f"chunks in place, {name}", rate / 1e9, "GB/s")
    header = ["tensors in one launch", "GB/s", "quartiles", "of HBM", "of the ALU roofline"]
    report.table("chunks read where tensors lie", header, rows)
    return kernels


def _values_in_place(
    kernels: Kernels,
    cut: BlockCut,
    flags: int,
    tensors: list[jax.Array],
    first: jax.Array,
    key: jax.Array,
) -> jax.Array:
    if kernels.tensor_chunks is None:
        raise SystemExit("digest_device: these kernels read nothing in place")
    return kernels.tensor_chunks(tensors, cut, first, key, flags)


if __name__ == "__main__":
    main()
