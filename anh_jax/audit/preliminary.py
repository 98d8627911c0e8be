"""Judges one step within bounds, on another mesh than the run's (docs/numerics.md, "Bounded").

What is judged was opened first: the state before the step, the gradient and the state after it,
each under the digest that the row commits. What has been reproduced bit for bit in the run's own
class cannot be wrong; outside the bounds it is unattestable there. What was not reproduced, and
lies outside, is refuted.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.audit.benches import placed
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.unmoved import Unmoved
from anh_jax.bounds.acceptance import Statistic, check_numbers, check_tensors, largest
from anh_jax.bounds.update_stage import UpdateInputs, UpdateStage
from anh_jax.digest.host import gradient_digest
from anh_jax.training.executor import Tree
from anh_jax.training.observers.attestation import host_number
from anh_jax.training.state import State
from anh_jax.workbench import Workbench
from attest.canonical import parse_hex_float
from attest.statements import Row


@dataclass(frozen=True)
class Opened:
    """A step as committed, each part under its digest in the rows.

    `outputs` holds `gradient` and `statistics`. `exact` says that the step was also reproduced bit
    for bit in the run's own class.
    """

    before: State
    outputs: Tree
    after: State
    exact: bool


class PreliminaryJudge:
    """Recomputes opened steps on the mesh of `bench` and compares within the contract's cap."""

    def __init__(self, bench: Workbench, unmoved: Unmoved, *, alg: str) -> None:
        materials = bench.materials
        numerics = materials.contract.numerics
        self._bench = bench
        self._unmoved = unmoved
        self._alg = alg
        self._cap = parse_hex_float(numerics.cap)
        self._stage = UpdateStage(
            materials.experiment.optimizer, unit_roundoff=parse_hex_float(numerics.unit_roundoff)
        )

    def judge(self, opened: Opened, row: Row, result: StepResult) -> StepResult:
        """Return `result`, the step's exact result, weighed anew by the bounds."""
        a, reference = self._gradient(opened, row)
        b = self._update(opened, row)
        fault = next(self._unmoved.faults(opened.after, row.step), "")
        own = gradient_digest(reference, step=row.step, alg=self._alg).root.hex()
        judged = dataclasses.replace(result, a=a.value, b=b.value, gradient_root=own)
        if fault:
            return dataclasses.replace(judged, outcome="refuted", words=fault)
        outside = [f"{n} = {s.value:.3g} at {s.where}" for n, s in (("A", a), ("B", b))
                   if not s.accepted]  # fmt: skip
        if not outside:
            words = f"within bounds on this mesh: A {a.value:.2g}, B {b.value:.2g}"
            return dataclasses.replace(judged, outcome="pass", words=words)
        words = f"outside the bounds: {', '.join(outside)}"
        if opened.exact:
            words += "; reproduced bit for bit in the run's own class"
        outcome = "unattestable" if opened.exact else "refuted"
        return dataclasses.replace(judged, outcome=outcome, words=words)

    def _gradient(self, opened: Opened, row: Row) -> "tuple[Statistic, Tree]":
        executor, batch = self._bench.executor, self._bench.batch(row.step)
        reference = executor.gradient(placed(self._bench, opened.before), batch.pieces)
        scalars = executor.scalars(reference)
        tensors = [
            check_tensors(opened.outputs[part], reference[part], cap=self._cap)
            for part in ("gradient", "statistics")
        ]
        numbers = check_numbers(
            {
                "loss": parse_hex_float(row.loss),
                "weight": parse_hex_float(row.scalars.weight),
                "globalNorm": parse_hex_float(row.scalars.global_norm),
            },
            {
                "loss": host_number(reference["loss"]),
                "weight": host_number(scalars["weight"]),
                "globalNorm": host_number(scalars["globalNorm"]),
            },
            cap=self._cap,
        )
        finite = Statistic(0.0, "finite")
        if int(host_number(scalars["finite"])) != row.scalars.finite:
            finite = Statistic(float("inf"), "finite flag")
        return largest((*tensors, numbers, finite)), reference

    def _update(self, opened: Opened, row: Row) -> Statistic:
        """Compute the update from what is committed: state, gradient and scalars."""
        table = self._bench.materials.constants
        scalars: dict[str, Any] = {
            "globalNorm": np.float32(parse_hex_float(row.scalars.global_norm)),
            "finite": np.uint32(row.scalars.finite),
            "weight": np.float32(parse_hex_float(row.scalars.weight)),
        }
        inputs = UpdateInputs(
            before=opened.before,
            gradient=opened.outputs["gradient"],
            weight=float(scalars["weight"]),
            global_norm=float(scalars["globalNorm"]),
            finite=bool(row.scalars.finite),
            constants=dict(zip(table.names, table.values[row.step - 1].tolist(), strict=True)),
        )
        before = kept_copy(placed(self._bench, opened.before))
        # The opened gradient lies on the run's mesh; the programs here lay it out anew.
        gradient = jax.tree.map(np.asarray, opened.outputs["gradient"])
        executor = self._bench.executor
        reference = executor.update(before, {"gradient": gradient}, scalars, row.step)
        return self._stage.check(inputs, opened.after, reference)
