"""All checks of one step from its committed parts (docs/numerics.md, "Bounded").

What is judged was opened before: the state before the step, what `gradient` gave and the state
after it, each under its committed digest. Nothing here reads a record or a file, so a step of any
origin can be judged: an audit's, an attacker's, a benchmark's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.deviations import Spread
from anh_jax.bounds.effect import beyond_rounding, check_effect, effect_limit
from anh_jax.bounds.gradient_check import Findings, GradientCheck, RowNumbers
from anh_jax.bounds.statistic import Array, Statistic, host_leaves
from anh_jax.bounds.step_statistics import StepStatistics, concluded, malformed
from anh_jax.bounds.update_judge import JudgedUpdate, update_judge
from anh_jax.bounds.update_stage import UpdateInputs
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.errors import ProgramError
from anh_jax.program.tree import Path, leaves_of, path_text
from anh_jax.training.executor import Tree
from anh_jax.training.optimizer import LEARNING_RATE
from anh_jax.training.state import State, gradient_part, moving_part
from anh_jax.workbench import Workbench


@dataclass(frozen=True)
class CommittedStep:
    """A step as committed: the state before it, its outputs, the state after it, its numbers.

    `outputs` holds `gradient` and `statistics`.
    """

    step: int
    before: State
    outputs: Tree
    after: State
    numbers: RowNumbers


class SpreadSource(Protocol):
    """Estimates how far rounding moves the outputs of `gradient` (`bounds/spread.py`)."""

    def estimate(self, state_part: Tree, pieces: Any, key: Any, *, seed: int) -> Spread:
        """Return the spread at a state and a batch."""
        ...

    def structural_zeros(
        self, state_part: Tree, pieces: Any, key: Any, *, seed: int
    ) -> Mapping[Path, Array]:
        """Return which elements of each output stay exactly zero at other parameters too."""
        ...


class StepCheck:
    """Judges steps of one contract on the mesh of a workbench.

    `spreads` are estimated for its gradient program, by its rules. Where that program has an
    operator that rounding cannot be followed through, only equal bits pass check A.
    """

    def __init__(self, bench: Workbench, spreads: SpreadSource) -> None:
        contract = bench.materials.contract
        self._bench = bench
        self._spreads = spreads
        self._updates = update_judge(bench.materials)
        self._rules = contract.numerics.rules
        self._null = contract.numerics.null_gradients
        self._optimizer = contract.optimizer
        self._gradient = GradientCheck(self._rules, self._null)

    def check(
        self, committed: CommittedStep, *, seed: int, walk: PairwiseCosine | None = None
    ) -> StepStatistics:
        """Judge a step; `seed` (64 bits) was drawn after it was committed.

        The residuals of its parameters are added to `walk`, which looks at steps together.
        """
        if (odd := self._form(committed)) is not None:
            return malformed(odd)
        before = _placed(self._bench, committed.before)
        pieces = self._bench.batch(committed.step).pieces
        reference = self._bench.executor.gradient(before, pieces)
        findings = self._outputs(committed, before, pieces, reference, seed)
        a2 = self._effect(committed, before, reference, findings)
        inputs = self._inputs(committed)
        after = self._updated(committed, _copy(moving_part(before)), _gradient(committed.outputs))
        judged = JudgedUpdate(inputs, committed.after, after)
        update = self._updates.judge(judged, seed=seed, walk=walk)
        return concluded(findings, a2, update, reference, excess=self._rules.a2_excess)

    def _form(self, committed: CommittedStep) -> Statistic | None:
        """Return infinity where a committed tensor is none of the programs', else nothing."""
        outputs, state = self._bench.abstract_outputs(), self._bench.abstract_state()
        for part in ("gradient", "statistics"):
            if odd := _odd_form(part, committed.outputs[part], outputs[part]):
                return Statistic(math.inf, odd)
        for part in ("parameters", "optimizer"):
            if odd := _odd_form(part, committed.after[part], state[part]):
                return Statistic(math.inf, odd)
        return None

    def _outputs(
        self, committed: CommittedStep, before: State, pieces: Any, reference: Tree, seed: int
    ) -> Findings:
        spread = self._spread(before, pieces, seed)
        like = np.asarray(reference["loss"]).dtype.type
        numbers = committed.numbers
        told = {
            "gradient": jax.tree.map(np.asarray, committed.outputs["gradient"]),
            "statistics": jax.tree.map(np.asarray, committed.outputs["statistics"]),
            "loss": _as(like, numbers.loss),
            "weight": _as(np.float32, numbers.weight),
        }
        return self._gradient.check(
            told,
            reference,
            numbers=numbers,
            scalars=self._bench.executor.scalars(told),
            spread=spread,
            structural=self._structural(before, pieces, seed),
        )

    def _spread(self, before: State, pieces: Any, seed: int) -> Spread | ProgramError:
        seen, key = gradient_part(before), before["key"]
        try:
            return self._spreads.estimate(seen, pieces, key, seed=seed)
        except ProgramError as error:
            return error

    def _structural(self, before: State, pieces: Any, seed: int) -> Mapping[Path, Array]:
        """Return the structural zeros, where not every zero that stands still counts as one."""
        if self._rules.local_zeros == "refuted":
            return {}
        seen, key = gradient_part(before), before["key"]
        try:
            return self._spreads.structural_zeros(seen, pieces, key, seed=seed)
        except ProgramError:
            return {}

    def _effect(
        self, committed: CommittedStep, before: State, reference: Tree, findings: Findings
    ) -> Statistic | None:
        limit = effect_limit(self._rules, optimizer=self._optimizer.name, step=committed.step)
        if limit is None:
            return None
        theirs, ours = _gradient(committed.outputs), _gradient(reference)
        start = moving_part(before)
        differences: dict[Path, Array] = {}
        if self._optimizer.kind == "elementwise":
            # From parameters of zero an update is seen as it is, not through their last place.
            start = {**start, "parameters": jax.tree.map(jnp.zeros_like, start["parameters"])}
        first = host_leaves(self._updated(committed, _copy(start), theirs)["parameters"])
        second = host_leaves(self._updated(committed, _copy(start), ours)["parameters"])
        for path, value in second.items():
            if self._optimizer.kind == "elementwise":
                differences[path] = first[path].astype(np.float64) - value.astype(np.float64)
            else:
                differences[path] = beyond_rounding(first[path], value)
        capped = {path[1:] for path in findings.capped if path[0] == "gradient"}
        return check_effect(
            differences,
            limit=limit * self._constants(committed.step)[LEARNING_RATE],
            passed_over=capped | {tuple(name.split("/")) for name in self._null},
        )

    def _updated(self, committed: CommittedStep, start: State, gradient: Tree) -> State:
        """Return what the stored program makes of a state whose buffers it may take."""
        numbers = committed.numbers
        scalars = {
            "globalNorm": _as(np.float32, numbers.global_norm),
            "finite": np.uint32(numbers.finite),
            "weight": _as(np.float32, numbers.weight),
        }
        outputs = {"gradient": gradient}
        return self._bench.executor.update(start, outputs, scalars, committed.step)

    def _inputs(self, committed: CommittedStep) -> UpdateInputs:
        numbers = committed.numbers
        return UpdateInputs(
            before=committed.before,
            gradient=committed.outputs["gradient"],
            weight=float(_as(np.float32, numbers.weight)),
            global_norm=float(_as(np.float32, numbers.global_norm)),
            finite=numbers.finite,
            constants=self._constants(committed.step),
        )

    def _constants(self, step: int) -> dict[str, float]:
        table = self._bench.materials.constants
        return dict(zip(table.names, table.values[step - 1].tolist(), strict=True))


def _odd_form(part: str, committed: Tree, expected: Tree) -> str:
    """Say which tensor is missing, too much or of another form; empty where none is."""
    theirs, ours = leaves_of(committed, (part,)), leaves_of(expected, (part,))
    if odd := theirs.keys() ^ ours.keys():
        return f"{path_text(min(odd))}: only on one side"
    for path, leaf in ours.items():
        if (theirs[path].shape, theirs[path].dtype) != (leaf.shape, leaf.dtype):
            return f"{path_text(path)}: another shape or dtype"
    return ""


def _as(kind: Any, number: float) -> Any:
    """Return a number of a row as a program takes it: infinite where it is too large."""
    with np.errstate(over="ignore"):
        return kind(number)


def _gradient(outputs: Tree) -> Tree:
    # What is committed may lie on another mesh; the programs here lay it out anew.
    return jax.tree.map(np.asarray, outputs["gradient"])


def _copy(tree: Tree) -> Tree:
    return jax.tree.map(jnp.copy, tree)


def _placed(bench: Workbench, tree: Tree) -> State:
    return jax.device_put(tree, jax.tree.map(lambda leaf: leaf.sharding, bench.abstract_state()))
