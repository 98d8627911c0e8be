"""The digest of a whole state on a device, with and without a copy of its tiles, and beside steps.

For `digest_device.py`, which prepares JAX before this is imported.
"""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from reporting import Report, Spread, say

from anh_jax.digest.kernels import Kernels

GPT2 = {"wte": (50304, 768), "wpe": (1024, 768)} | {
    f"{kind}{layer}": shape
    for layer in range(12)
    for kind, shape in {
        "qkv": (768, 2304), "out": (768, 768), "up": (768, 3072), "down": (3072, 768),
    }.items()
}  # fmt: skip
_TRAIN = 10  # digests that are started back to back
_SIDE = 4096  # of the matrices that stand for a step's arithmetic


def time_state(kernels: Kernels, rounds: int, report: Report) -> None:
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
            for name, shape in GPT2.items()
        }
        for part in ("parameters", "mu", "nu")
    }
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    ways = {"": DeviceDigest(kernels=kernels)}
    if kernels.tensor_chunks is not None:
        ways[", tiles copied first"] = DeviceDigest(kernels=replace(kernels, tensor_chunks=None))
    # Small enough for the host, and with enough of one shape to be read in place.
    some = {name: leaf for name, leaf in state["mu"].items() if name.startswith(("up", "wpe"))}
    firsts = []
    for way, digester in ways.items():
        start = time.perf_counter()
        firsts.append(digester.start(state, step=0).result())
        say(f"first digest{way} after {time.perf_counter() - start:.1f} s, mostly compilation")
        if digester.start(some, step=1).result() != tree_digest(some, step=1):
            raise SystemExit(f"digest_device: WRONG{way}: the device's digest is not the host's")
    if len(set(firsts)) != 1:
        raise SystemExit("digest_device: WRONG: read in place and copied, a state has two digests")
    rows = list[list[str]]()
    for what, count in (("started and waited for", 1), (f"one of {_TRAIN}, back to back", _TRAIN)):
        spreads = _turns(ways, state, count, rounds)
        for way, spread in spreads.items():
            rows.append([f"{size / 1e9:.2f} GB, {what}{way}", spread.text()])
            name = "state of 124M with Adam" + (", back to back" if count > 1 else "")
            report.figure(name + way, spread.median, "ms", spread)
    for tokens in (32_768, 524_288):
        ratio = _step_ratio(state, ways[""], tokens, rounds)
        rows.append([f"attested / unattested step, {tokens} tokens", ratio.text(4)])
        report.figure(f"step ratio, {tokens} tokens", ratio.median, "ratio", ratio)
    report.table("GPT-2 124M, float32, Adam", ["", "ms or ratio"], rows)


def _turns(ways: dict[str, Any], state: Any, count: int, rounds: int) -> dict[str, Spread]:
    """Return the milliseconds of a digest in each way, of which `count` are started at a time."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in reversed(ways) if turn % 2 else ways:
            start = time.perf_counter()
            pending = [ways[way].start(state, step=0) for _ in range(count)]
            pending[-1].result()
            seconds[way].append((time.perf_counter() - start) / count)
    return {way: Spread.of([1e3 * each for each in times]) for way, times in seconds.items()}


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
