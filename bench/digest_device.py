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
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "")  # before `reporting` settles for the CPU

import jax
import jax.numpy as jnp
import numpy as np
from reporting import Report, Spread, parser, say

from anh_jax.digest.blake3_xla import derive_key_mode, hash_messages
from anh_jax.digest.kernels import CHUNK_BYTES, Kernels, xla_kernels
from anh_jax.digest.roofline import BLAKE3_OPS, BLOCK_BYTES, Chip, bound, chip_of
from attest.blake3_pure import blake3_derive_key

CLAIM = "device digest: bytes per second of the kernels, share of the rooflines, time of a state"
_CONTEXT = "anh bench"
_TILE_BYTES = 16384
_GPT2 = {"wte": (50304, 768), "wpe": (1024, 768)} | {
    f"{kind}{layer}": shape
    for layer in range(12)
    for kind, shape in {
        "qkv": (768, 2304), "out": (768, 768), "up": (768, 3072), "down": (3072, 768),
    }.items()
}  # fmt: skip
_SIDE = 4096  # of the matrices that stand for a step's arithmetic


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
    if here:
        _state(best, rounds, report)
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


def _state(kernels: Kernels, rounds: int, report: Report) -> None:
    """Time the digest of GPT-2 124M with Adam, and steps with and without it."""
    try:
        from anh_jax.digest.device import DeviceDigest
        from anh_jax.digest.host import tree_digest
    except ImportError as error:
        say(f"no whole state: {error}")
        return
    numbers = iter(range(1000))
    state = {
        part: {
            name: jax.random.normal(jax.random.key(next(numbers)), shape)
            for name, shape in _GPT2.items()
        }
        for part in ("parameters", "mu", "nu")
    }
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    digester = DeviceDigest(kernels=kernels)
    start = time.perf_counter()
    first = digester.start(state, step=0).result()
    say(f"first digest after {time.perf_counter() - start:.1f} s, most of it compilation")
    small = {name: state["mu"][name] for name in ("wpe", "out0", "up0")}
    if digester.start(small, step=1).result() != tree_digest(small, step=1):
        raise SystemExit("digest_device: WRONG: the device's digest is not the host's")
    seconds = list[float]()
    for _ in range(rounds):
        start = time.perf_counter()
        again = digester.start(state, step=0).result()
        seconds.append(time.perf_counter() - start)
        if again != first:
            raise SystemExit("digest_device: WRONG: the same state has two digests")
    spread = Spread.of([1e3 * each for each in seconds])
    rows = [[f"{size / 1e9:.2f} GB, started and waited for", spread.text()]]
    report.figure("state of 124M with Adam", spread.median, "ms", spread)
    for tokens in (32_768, 524_288):
        ratio = _step_ratio(state, digester, tokens, rounds)
        rows.append([f"attested / unattested step, {tokens} tokens", ratio.text(4)])
        report.figure(f"step ratio, {tokens} tokens", ratio.median, "ratio", ratio)
    report.table("GPT-2 124M, float32, Adam", ["", "ms or ratio"], rows)


def _step_ratio(state: Any, digester: Any, tokens: int, rounds: int) -> Spread:
    """Return the time of steps with a digest over that of steps without, of 6 N tokens FLOP each.

    A step is matrix products in bfloat16 of that many FLOP and an update of every element; the
    digest is started before the buffers are given away and waited for one step later.
    """
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["parameters"]))
    products = max(1, round(6 * parameters * tokens / (2 * _SIDE**3)))
    matrix = jax.random.normal(jax.random.key(1), (_SIDE, _SIDE), jnp.bfloat16) / _SIDE**0.5

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, matrix: jax.Array) -> Any:
        last = jax.lax.fori_loop(0, products, lambda _, x: x @ matrix, matrix)
        scale = 1 + 1e-6 * last[0, 0].astype(jnp.float32)
        return jax.tree.map(lambda leaf: leaf * scale, state)

    def run(state: Any, steps: int, digests: Any) -> tuple[Any, float]:
        jax.block_until_ready(state)
        start, pending = time.perf_counter(), None
        for number in range(steps):
            started = digests.start(state, step=number) if digests is not None else None
            state = step(state, matrix)
            if pending is not None:
                pending.result()
            pending = started
        if pending is not None:
            pending.result()
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    state = jax.tree.map(jnp.copy, state)
    state, _ = run(state, 2, digester)
    steps, ratios = max(4, 2**20 // tokens), list[float]()
    for turn in range(max(4, rounds // 3)):
        seconds: dict[bool, float] = {}
        for attested in (False, True) if turn % 2 else (True, False):
            state, seconds[attested] = run(state, steps, digester if attested else None)
        ratios.append(seconds[True] / seconds[False])
    say(f"{tokens} tokens: {1e3 * seconds[False] / steps:.1f} ms a step")
    return Spread.of(ratios)


if __name__ == "__main__":
    main()
