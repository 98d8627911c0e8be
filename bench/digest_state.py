"""A GPT-2-124M training state, digested and hashed in the ways there are, in one run."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np
from blake3 import blake3
from reporting import Report, Spread, say

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile

Arrays = dict[str, jax.Array]
State = dict[str, Arrays]


@dataclass(frozen=True)
class Contender:
    """Something that hashes all of the state once, and what its result is good for."""

    name: str
    label: str
    work: Callable[[], object]
    opens: str = ""
    sharding: str = ""
    binds: str = ""


@dataclass
class Times:
    """CPU and wall seconds of one contender, by round."""

    cpu: list[float] = field(default_factory=list[float])
    wall: list[float] = field(default_factory=list[float])


def gpt2_shapes(layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Return the parameters of GPT-2 (width 768), layers unstacked; 12 and 50257 are 124M."""
    shapes: dict[str, tuple[int, ...]] = {
        "wte": (vocabulary, 768),
        "wpe": (1024, 768),
        "ln_f/scale": (768,),
        "ln_f/bias": (768,),
    }
    for layer in range(layers):
        for name, shape in (
            ("ln_1/scale", (768,)), ("ln_1/bias", (768,)),
            ("attn/qkv", (768, 2304)), ("attn/qkv_bias", (2304,)),
            ("attn/out", (768, 768)), ("attn/out_bias", (768,)),
            ("ln_2/scale", (768,)), ("ln_2/bias", (768,)),
            ("mlp/up", (768, 3072)), ("mlp/up_bias", (3072,)),
            ("mlp/down", (3072, 768)), ("mlp/down_bias", (768,)),
        ):  # fmt: skip
            shapes[f"h{layer}/{name}"] = shape
    return shapes


def training_state(shapes: dict[str, tuple[int, ...]]) -> State:
    """Return parameters and both moments of Adam, float32."""
    random = np.random.default_rng(0)
    return {
        part: {
            name: jax.block_until_ready(
                jax.numpy.asarray(random.standard_normal(shape, dtype=np.float32))
            )
            for name, shape in shapes.items()
        }
        for part in ("parameters", "first_moment", "second_moment")
    }


def compare(state: State, rounds: int, report: Report) -> None:
    """Time every way to hash the state, in turns, and print what each can and cannot do."""
    threads = len(os.sched_getaffinity(0))
    path, digest = ("parameters", "h0/mlp/up"), tree_digest(state, step=0)
    opening = f"{len(open_tile(state, digest, path=path, index=(0, 0))):,} bytes"
    contenders = [
        Contender("blake3", "blake3 of each leaf, one thread", lambda: _each_blake3(state)),
        Contender(
            "digest", "state digest, BLAKE3, one thread",
            lambda: tree_digest(state, step=0), opening, "yes", "all of it",
        ),
        Contender(
            "digest_threads", f"state digest, BLAKE3, {threads} threads",
            lambda: tree_digest(state, step=0, threads=threads), opening, "yes", "all of it",
        ),
        Contender(
            "digest_sha256", "state digest, SHA-256, one thread",
            lambda: tree_digest(state, step=0, alg="sha256"), opening, "yes", "all of it",
        ),
        Contender(
            "sha256_leaves", "device_get, hashlib.sha256 of each leaf",
            lambda: _each_sha256(state), "the whole leaf", "no: gathers", "a leaf's bytes",
        ),
        Contender(
            "sha256_running", "one running SHA-256, sorted names, cast to float32",
            lambda: _running_sha256(state), "the whole state", "no: gathers", "values, order",
        ),
    ]  # fmt: skip
    times = _in_turns(contenders, rounds)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    _tell(contenders, times, size, report)


def _each_blake3(state: State) -> list[bytes]:
    return [blake3(_bytes_of(leaf)).digest() for leaf in jax.tree.leaves(state)]


def _bytes_of(leaf: jax.Array) -> memoryview:
    return np.asarray(leaf.addressable_data(0)).reshape(-1).view(np.uint8).data


def _each_sha256(state: State) -> list[bytes]:
    held = jax.device_get(state)
    return [hashlib.sha256(leaf.data).digest() for leaf in jax.tree.leaves(held)]


def _running_sha256(state: State) -> bytes:
    """Hash as Srivastava et al. 2024 do (merkle.py of meghabyte/verifiable-training)."""
    running = hashlib.sha256()
    for part in sorted(state):
        for name in sorted(state[part]):
            running.update(np.asarray(state[part][name]).astype(np.float32).tobytes())
    return running.digest()


def _in_turns(contenders: list[Contender], rounds: int) -> dict[str, Times]:
    times = {contender.name: Times() for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            cpu, wall = time.process_time(), time.perf_counter()
            contender.work()
            times[contender.name].wall.append(time.perf_counter() - wall)
            times[contender.name].cpu.append(time.process_time() - cpu)
        say(f"digest of a state: round {number + 1} of {rounds}")
    return times


def _tell(contenders: list[Contender], times: dict[str, Times], size: int, report: Report) -> None:
    base = times["blake3"]
    rows: list[tuple[str, ...]] = []
    for contender in contenders:
        own = times[contender.name]
        rate = Spread.of([size / 1e9 / cpu for cpu in own.cpu])
        share = Spread.of([b / a for a, b in zip(own.cpu, base.cpu, strict=True)])
        wall = Spread.of([b / a for a, b in zip(own.wall, base.wall, strict=True)])
        text = (rate.text(2), share.text(3), wall.text(3))
        rows.append((contender.label, *text, contender.opens, contender.sharding, contender.binds))
        report.figure(f"{contender.name}_state_gb_per_cpu_second", rate.median, "GB/s", rate)
        if contender.name == "digest":
            report.figure("host_vs_blake3", share.median, "of blake3's rate", share)
        elif contender.name != "blake3":
            report.figure(f"{contender.name}_vs_blake3", share.median, "of blake3's rate", share)
        if contender.name == "digest_threads":
            report.figure("host_threads_vs_blake3", wall.median, "of blake3's wall rate", wall)
    header = (
        "", "GB per CPU second", "over blake3, CPU", "over blake3, wall",
        "opens a tile in", "sharding-free", "binds",
    )  # fmt: skip
    title = f"one training state of {size / 1e9:.2f} GB: parameters and both moments, float32"
    report.table(title, header, rows)
