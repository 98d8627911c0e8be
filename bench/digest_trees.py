"""What a tree costs beside its bytes: many tensors, small ones, the first digest, frozen ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from blake3 import blake3
from reporting import Report, Spread

from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.host import tree_digest
from attest.digest_tree import tile_grid

_TENSORS = 1000
_SMALL_TENSORS = 200


@dataclass(frozen=True)
class Implementation:
    """Something that digests a tree; `compiles` counts what it compiled so far."""

    name: str
    digest: Callable[[Any, int], bytes]
    compiles: Callable[[], int]


def implementations() -> list[Implementation]:
    """List what is compared on the tree of many tensors; the first is the one to be equal to."""
    compiled: list[str] = []

    def note(event: str, duration: float, **unused: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    device = DeviceDigest()

    def on_devices(tree: Any, step: int) -> bytes:
        compiled.clear()
        root = device.start(tree, step=step).result().root
        programs.append(len(compiled))
        return root

    programs: list[int] = []
    return [
        Implementation("host", lambda tree, step: tree_digest(tree, step=step).root, lambda: 0),
        Implementation("device", on_devices, lambda: sum(programs)),
    ]


def compare_trees(rounds: int, report: Report) -> None:
    """Tell what the tensors of a tree cost."""
    _many(rounds, report)
    _small(rounds, report)
    _frozen(rounds, report)


def _many(rounds: int, report: Report) -> None:
    """Digest a thousand tensors of sixteen shapes: the first time, and once they are known."""
    shapes = [(64 + 32 * (i % 16), 256) for i in range(_TENSORS)]
    random = np.random.default_rng(0)
    base = {
        f"tensor {i:04}": jax.numpy.asarray(random.standard_normal(shape, dtype=np.float32))
        for i, shape in enumerate(shapes)
    }
    rows: list[tuple[str, ...]] = []
    roots: set[bytes] = set()
    for each in implementations():
        start = time.perf_counter()
        roots.add(each.digest(base, 0))
        first = time.perf_counter() - start
        costs: list[float] = []
        for _ in range(rounds):
            cpu = time.process_time()
            each.digest(base, 0)
            costs.append(1e3 * (time.process_time() - cpu))
        spread = Spread.of(costs)
        rows.append((each.name, f"{first:.3f}", spread.text(2), str(each.compiles())))
        report.figure(f"{each.name}_first_digest_seconds", first, "s, 1,000 tensors")
        report.figure(f"{each.name}_thousand_tensors_ms", spread.median, "ms CPU", spread)
        report.figure(f"{each.name}_compiles", each.compiles(), "compilations, 1,000 tensors")
    if len(roots) != 1:
        raise SystemExit("the implementations disagree on the tree of 1,000 tensors")
    size = sum(leaf.nbytes for leaf in base.values())
    tiles = sum(math.prod(tile_grid(leaf.shape, leaf.itemsize)) for leaf in base.values())
    # A node joins two tiles, a set two tensors; every tensor has a digest, and so have the
    # structure and the state.
    hashes = tiles + (tiles - _TENSORS) + _TENSORS + (_TENSORS - 1) + 2
    report.figure("thousand_tensors_hashes", hashes, "hashes a digest")
    header = ("", "first, s", "then, ms CPU", "compilations")
    title = f"{_TENSORS:,} tensors, {size >> 20} MiB, one digest of {hashes:,} hashes"
    report.table(title, header, rows)


def _small(rounds: int, report: Report) -> None:
    """Time what a tensor costs that is smaller than a tile: the Python around its few hashes."""
    tensors = {
        f"layer {i:03}": {"bias": jax.numpy.full(64, i, "float32")} for i in range(_SMALL_TENSORS)
    }
    data = [np.asarray(tensor["bias"]).tobytes() for tensor in tensors.values()]
    costs: dict[str, list[float]] = {"hash": [], "digest": []}
    for step in range(10 * rounds):
        for name, work in (
            ("hash", lambda: [blake3(piece).digest() for piece in data]),
            ("digest", lambda: tree_digest(tensors, step=step)),  # noqa: B023
        ):
            start = time.thread_time()
            work()
            costs[name].append(1e6 * (time.thread_time() - start) / _SMALL_TENSORS)
    ratio = Spread.of([a / b for a, b in zip(costs["digest"], costs["hash"], strict=True)])
    spread = Spread.of(costs["digest"])
    report.table(
        f"{_SMALL_TENSORS} tensors of 256 bytes",
        ("", "us a tensor", "ratio"),
        (
            ("blake3 of each (baseline)", Spread.of(costs["hash"]).text(2), "1"),
            ("tree_digest", spread.text(2), ratio.text(1)),
        ),
    )
    report.figure("small_tensor_us", spread.median, "us CPU a tensor", spread)


def _frozen(rounds: int, report: Report) -> None:
    """Digest a state of frozen weights and low-rank adapters, as the adapters train."""
    random = np.random.default_rng(0)
    weights = {
        f"layer {i}": jax.numpy.asarray(random.standard_normal((1024, 1024), dtype=np.float32))
        for i in range(8)
    }
    adapters = {
        name: {"a": jax.numpy.ones((1024, 8)), "b": jax.numpy.zeros((8, 1024))} for name in weights
    }
    train = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0.5 + 1, tree), donate_argnums=0)
    frozen, costs = FrozenTops(), dict[str, list[float]](all=[], frozen=[])
    for step in range(rounds + 1):
        state = {"weights": weights, "adapters": adapters}
        roots: set[bytes] = set()
        for name, memory in (("all", None), ("frozen", frozen)):
            start = time.thread_time()
            roots.add(tree_digest(state, step=step, frozen=memory).root)
            if step:  # the first digest reads everything
                costs[name].append(1e3 * (time.thread_time() - start))
        if len(roots) != 1:
            raise SystemExit("remembered tensors gave another digest")
        adapters = jax.block_until_ready(train(adapters))
    ratio = Spread.of([a / b for a, b in zip(costs["frozen"], costs["all"], strict=True)])
    report.table(
        "8 frozen weights of 4 MiB and their adapters of rank 8, one step's digest",
        ("", "ms CPU", "ratio"),
        (
            ("every tensor read (baseline)", Spread.of(costs["all"]).text(3), "1"),
            ("frozen tensors remembered", Spread.of(costs["frozen"]).text(3), ratio.text(3)),
        ),
    )
    report.figure("frozen_vs_all", ratio.median, "of the CPU time", ratio)
