"""Judges one step within bounds (docs/numerics.md, "Bounded").

What is judged was opened first: the state before the step, the gradient and the state after it,
each under the digest that the row commits. What has been reproduced bit for bit in the run's own
class cannot be wrong; outside the bounds it is unattestable there. What was not reproduced, and
lies outside, is refuted.
"""

import dataclasses
from dataclasses import dataclass

from anh_jax.audit.drift import DriftAccumulator
from anh_jax.audit.results import StepResult
from anh_jax.audit.unmoved import Unmoved
from anh_jax.bounds.gradient_check import RowNumbers
from anh_jax.bounds.statistic import Statistic
from anh_jax.bounds.step_check import CommittedStep, StepCheck
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.digest.host import gradient_digest
from anh_jax.training.executor import Tree
from anh_jax.training.state import State
from attest.canonical import parse_hex_float
from attest.spread_seed import step_seed
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


def row_numbers(row: Row) -> RowNumbers:
    """Return the numbers of a row as the checks take them."""
    return RowNumbers(
        loss=parse_hex_float(row.loss),
        weight=parse_hex_float(row.scalars.weight),
        global_norm=parse_hex_float(row.scalars.global_norm),
        finite=bool(row.scalars.finite),
        declared=None if row.bound is None else parse_hex_float(row.bound),
    )


class BoundedJudge:
    """Recomputes opened steps on one mesh and compares within the contract's tolerances.

    `seed` is the audit's (`attest.spread_seed`); `walk` gathers the residuals of all steps.
    """

    def __init__(
        self, check: StepCheck, unmoved: Unmoved, *, alg: str, seed: int, walk: PairwiseCosine
    ) -> None:
        self._check = check
        self._unmoved = unmoved
        self._alg = alg
        self._seed = seed
        self._walk = walk

    def judge(
        self, opened: Opened, row: Row, result: StepResult, drift: DriftAccumulator
    ) -> StepResult:
        """Return `result`, the step's exact result, weighed anew by the bounds.

        What is left of the gradient is added to `drift`.
        """
        committed = CommittedStep(
            row.step, opened.before, opened.outputs, opened.after, row_numbers(row)
        )
        seed = step_seed(self._seed, row.step)
        found = self._check.check(committed, seed=seed, walk=self._walk)
        root = ""
        if found.reference:
            drift.add(row.step, opened.outputs["gradient"], found.reference["gradient"])
            root = gradient_digest(found.reference, step=row.step, alg=self._alg).root.hex()
        judged = dataclasses.replace(
            result,
            outcome=found.outcome,
            words=found.words,
            gradient_root=root,
            spread_seed=f"{seed:016x}",
            a=found.a.value,
            a_row=found.a_row.value,
            zeros=found.zeros.value,
            a2=_value(found.a2),
            b=found.b.value,
            walk=_value(found.walk),
        )
        if fault := next(self._unmoved.faults(opened.after, row.step), ""):
            return dataclasses.replace(judged, outcome="refuted", words=fault)
        if opened.exact and found.outcome == "refuted":
            words = f"{found.words}; reproduced bit for bit in the run's own class"
            return dataclasses.replace(judged, outcome="unattestable", words=words)
        return judged


def _value(statistic: Statistic | None) -> float | None:
    return None if statistic is None else statistic.value
