"""Claim: the tolerance of a gradient is 1 to 10 times what honest executors differ by.

The spread of each tensor is estimated on the stored program and multiplied by the class's constant;
against it stand other honest ways to compute the same gradient (pieces of a batch, its examples in
another order, more devices, operator by operator), in a fresh, a trained and a disturbed state.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from reporting import Report, Spread, parser, say

from anh_jax.bounds.blocks import block_sums
from anh_jax.bounds.spread import SpreadEstimator
from anh_jax.bounds.variance import roundoff_variance
from anh_jax.experiment import load_experiment
from anh_jax.preparation import PreparedContract, prepare
from anh_jax.program.interpret import read_refined
from anh_jax.program.tree import Path as Leaf
from anh_jax.program.tree import leaves_of, path_text
from anh_jax.training.state import gradient_part
from anh_jax.workbench import MeshSizes, Workbench, materials_of
from attest.numerics_class import CLASSES

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CLAIM = "tolerance of a gradient over the largest difference between honest executors"
RULES = CLASSES["f32"]
GOAL = (1.0, 10.0)
SEED = 20_251
_SMALL = ("training.batch_size=24",)
TASKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mlp": ("digits.yaml", (*_SMALL, "model={name: mlp, hidden: [64, 32], classes: 10}")),
    "vit": (
        "digits.yaml",
        (*_SMALL, "model.width=16", "model.heads=2", "model.mlp_width=32"),
    ),
    "lm": (
        "python_docs_lm.yaml",
        (
            *_SMALL,
            *("model.width=16", "model.heads=2", "model.mlp_width=32"),
            *("model.sequence_length=32", "data.sequence_length=32"),
        ),
    ),
}

Gradient = dict[Leaf, np.ndarray]


@dataclass(frozen=True)
class Point:
    """A state and a batch to take a gradient at, on the host."""

    name: str
    parameters: Any
    step: int
    examples: Mapping[str, np.ndarray]

    def state(self, bench: Workbench) -> dict[str, Any]:
        """Return the state on a mesh."""
        fresh = bench.executor.initial_state(0)
        return {**fresh, "parameters": self.parameters, "step": np.uint32(self.step)}


@dataclass(frozen=True)
class Tensor:
    """One tensor of one point: how far it may move, and how far it moved at most.

    `row` is the largest block difference over its spread, floor included.
    """

    name: str
    spread: float
    real: float
    row: float
    mca_over_jvp: float
    variance_over_jvp: float

    @property
    def tightness(self) -> float:
        """Return the tolerance over the largest real difference."""
        return RULES.c * self.spread / self.real if self.real else float("inf")


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    options = _options()
    report = Report(CLAIM)
    found: list[Tensor] = []
    for task in options.tasks:
        found += _task(task, options, report)
    tight = [x.tightness for x in found if x.real and x.name.startswith("gradient")]
    report.figure("bound_tightness", statistics.median(tight), "ratio", Spread.of(tight))
    report.figure("bound_tightness_smallest", min(tight), "ratio")
    report.figure("bound_tightness_largest", max(tight), "ratio")
    inside = sum(GOAL[0] <= x <= GOAL[1] for x in tight)
    report.figure("bound_tightness_inside", inside / len(tight), "share")
    report.figure("spreads_per_tensor", max(x.real / x.spread for x in found), "spreads")
    report.figure("spreads_per_block", max(x.row for x in found), "spreads")
    for name in ("mca_over_jvp", "variance_over_jvp"):
        ratios = [getattr(x, name) for x in found]
        report.figure(name, statistics.median(ratios), "ratio", Spread.of(ratios))
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--tasks", nargs="*", choices=tuple(TASKS), default=tuple(TASKS))
    made.add_argument("--warm", type=int, default=60, help="steps of the trained state")
    options = made.parse_args()
    if options.quick:
        options.tasks, options.warm = ("mlp",), 5
    return options


def _task(task: str, options: argparse.Namespace, report: Report) -> list[Tensor]:
    config, overrides = TASKS[task]
    steps = (f"training.steps={options.warm + 1}",)
    contract = prepare(load_experiment(CONFIGS / config, (*overrides, *steps)))
    bench = Workbench(materials_of(contract), MeshSizes(), microbatch=None)
    judge = _Judge(contract, bench)
    found: list[Tensor] = []
    for point in _points(bench, options.warm):
        say(f"{task} {point.name}")
        tensors, rows = judge.weigh(point, op_by_op=task == "mlp")
        report.table(
            f"{task} {point.name}: largest difference in spreads, by variant",
            ("variant", "bits changed", "tensor", "block"),
            rows,
        )
        worst = max(tensors, key=lambda x: x.real / x.spread)
        tight = [x.tightness for x in tensors if x.real]
        report.table(
            f"{task} {point.name}: tolerance over the largest difference",
            ("", "smallest", "median", "largest", "worst tensor"),
            [("c s / d", f"{min(tight):.2f}", f"{statistics.median(tight):.2f}",
              f"{max(tight):.1f}", worst.name)],
        )  # fmt: skip
        found += tensors
        report.table(
            f"{task} {point.name}: tensors that moved most, in spreads",
            ("tensor", "tensor", "block", "mca / jvp", "variance / jvp"),
            [(x.name, f"{x.real / x.spread:.2f}", f"{x.row:.2f}", f"{x.mca_over_jvp:.2f}",
              f"{x.variance_over_jvp:.2f}")
             for x in sorted(tensors, key=lambda x: -x.real / x.spread)[:4]],
        )  # fmt: skip
    for name, cost in judge.costs().items():
        report.figure(f"{name}_sample_cost_{task}", cost.median, "gradients", cost)
    return found


def _points(bench: Workbench, warm: int) -> Iterator[Point]:
    """Yield a fresh state, a trained one, and the trained one with disturbed weights and inputs."""
    executor = bench.executor
    state = executor.initial_state(bench.materials.contract.seed)
    for step in range(1, warm + 2):
        batch = bench.batch(step)
        (piece,) = batch.pieces
        examples = {name: np.array(x) for name, x in piece.items()}
        parameters = jax.tree.map(np.array, state["parameters"])
        if step == 1:
            yield Point("cold", parameters, 0, examples)
        outputs = executor.gradient(state, batch.pieces)
        state = executor.update(state, outputs, executor.scalars(outputs), step)
    yield Point("warm", parameters, warm, examples)
    random = np.random.default_rng(SEED)
    shaken = jax.tree.map(
        lambda x: (x * (1 + 0.5 * random.standard_normal(x.shape))).astype(x.dtype), parameters
    )
    loud = {
        name: 8 * x if x.dtype.kind == "f" and name != "weight" else x
        for name, x in examples.items()
    }
    yield Point("spike", shaken, warm, loud)


class _Judge:
    """Estimates and computes the gradients of one task's points."""

    def __init__(self, contract: PreparedContract, bench: Workbench) -> None:
        stored = contract.programs.stored["gradient"]
        materials = materials_of(contract)
        self._bench = bench
        self._batch = contract.contract.batch_size
        self._program = read_refined(stored, batch=self._batch)
        self._estimators = {
            method: SpreadEstimator(stored, RULES, method=method) for method in ("mca", "jvp")
        }
        self._variance = jax.jit(
            lambda *x: roundoff_variance(lambda *y: self._program(*y), *x, rules=RULES)
        )
        self._wide = {
            n: Workbench(materials, MeshSizes(data=n), microbatch=None) for n in (2, 4, 8)
        }
        self._seconds: dict[str, list[float]] = {"gradient": [], "mca": [], "jvp": []}

    def weigh(self, point: Point, *, op_by_op: bool) -> tuple[list[Tensor], list[tuple[str, ...]]]:
        state = point.state(self._bench)
        seen, pieces = gradient_part(state), (point.examples,)
        spreads = {
            name: estimator.estimate(seen, pieces, state["key"], seed=SEED).tensors
            for name, estimator in self._estimators.items()
        }
        variances = leaves_of(self._variance(seen, point.examples, state["key"])[1])
        reference = _host(self._bench.executor.gradient(state, pieces))
        self._time(state, point)
        own, rows = spreads["mca"], list[tuple[str, ...]]()
        real, worst = dict.fromkeys(reference, 0.0), dict.fromkeys(reference, 0.0)
        for name, gradient in self._variants(point, op_by_op):
            tensors, blocks = {}, {}
            for path, value in gradient.items():
                difference = value - reference[path]
                tensors[path] = float(np.linalg.norm(difference))
                blocks[path] = _block_ratio(difference, reference[path], own[path].blocks, path)
                real[path] = max(real[path], tensors[path])
                worst[path] = max(worst[path], blocks[path])
            changed = np.mean(np.concatenate([
                (value != reference[path]).ravel() for path, value in gradient.items()
            ]))  # fmt: skip
            spread = {p: _floored(own[p].square ** 0.5, reference[p], p) for p in reference}
            tensor = max(tensors[p] / spread[p] for p in reference)
            rows.append((name, f"{changed:.0%}", f"{tensor:.2f}", f"{max(blocks.values()):.2f}"))
        found = [
            Tensor(
                path_text(path),
                _floored(own[path].square ** 0.5, reference[path], path),
                real[path],
                worst[path],
                (own[path].square / spreads["jvp"][path].square) ** 0.5,
                (float(variances[path].sum()) / spreads["jvp"][path].square) ** 0.5,
            )
            for path in reference
            if path[0] != "weight"
        ]
        return found, rows

    def _variants(self, point: Point, op_by_op: bool) -> Iterator[tuple[str, Gradient]]:
        executor, state = self._bench.executor, point.state(self._bench)

        def cut(parts: int) -> list[dict[str, np.ndarray]]:
            rows = np.split(np.arange(self._batch), parts)
            return [{name: x[part] for name, x in point.examples.items()} for part in rows]

        for parts in (2, 3, 8):
            yield f"{parts} pieces", _host(executor.gradient(state, cut(parts)))
        for seed in (1, 2):
            order = np.random.default_rng(seed).permutation(self._batch)
            mixed = {name: x[order] for name, x in point.examples.items()}
            yield f"order {seed}", _host(executor.gradient(state, [mixed]))
        for count, bench in self._wide.items():
            outputs = bench.executor.gradient(point.state(bench), [point.examples])
            yield f"{count} devices", _host(outputs)
        if op_by_op:
            inputs = (gradient_part(state), point.examples, state["key"])
            yield "operator by operator", _host(self._program(*inputs, loops="python"))

    def _time(self, state: Any, point: Point) -> None:
        seen, key = gradient_part(state), state["key"]
        one = {
            "gradient": lambda: self._bench.executor.gradient(state, (point.examples,)),
            **{
                name: lambda estimator=estimator: estimator.estimate(
                    seen, (point.examples,), key, seed=1
                )
                for name, estimator in self._estimators.items()
            },
        }
        for _ in range(7):
            for name, run in one.items():
                samples = self._estimators[name].samples if name in self._estimators else 1
                self._seconds[name].append(_cpu_seconds(run) / samples)

    def costs(self) -> dict[str, Spread]:
        """Return what a sample costs in gradients: CPU time beside a gradient of its round."""
        plain = self._seconds["gradient"]
        return {
            name: Spread.of([x / y for x, y in zip(self._seconds[name], plain, strict=True)])
            for name in self._estimators
        }


def _cpu_seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def _host(outputs: Any) -> Gradient:
    return {path: np.asarray(x).astype(np.float64) for path, x in leaves_of(outputs).items()}


def _floored(spread: float, reference: np.ndarray, path: Leaf) -> float:
    phi = RULES.phi if path[0] == "gradient" else RULES.phi_sum
    return max(spread, phi * RULES.unit_roundoff * float(np.linalg.norm(reference)))


def _block_ratio(
    difference: np.ndarray, reference: np.ndarray, blocks: tuple[np.ndarray, ...], path: Leaf
) -> float:
    """Return the largest norm of a block of the difference over the block's floored spread."""
    phi = RULES.phi if path[0] == "gradient" else RULES.phi_sum
    squares = zip(block_sums(difference**2), block_sums(reference**2), blocks, strict=True)
    worst = 0.0
    for moved, size, own in squares:
        allowed = np.maximum(own, (phi * RULES.unit_roundoff) ** 2 * size)
        ratio = np.divide(moved, allowed, out=np.zeros_like(moved), where=moved != 0)
        worst = max(worst, float(np.sqrt(ratio.max(initial=0.0))))
    return worst


if __name__ == "__main__":
    main()
