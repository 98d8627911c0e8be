"""Weighs steps of an audit within bounds, and gathers what they leave for checks of the run."""

import secrets

import jax

from anh_jax.audit.benches import Benches
from anh_jax.audit.bounded import BoundedJudge, Opened
from anh_jax.audit.drift import DriftAccumulator, DriftWatch
from anh_jax.audit.results import StepResult
from anh_jax.audit.transcript import Transcript
from anh_jax.audit.unmoved import Unmoved
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.environment import execution_class
from anh_jax.line import SignedRow
from anh_jax.stated_class import stated_class
from anh_jax.workbench import MeshSizes, Workbench


class Weighing:
    """The bounded judges of an audit, one for each mesh.

    `seed` is what all noise follows from (`attest.spread_seed`); with None it is drawn here, which
    is for those who sign nothing. `walk` holds the residuals of all weighed updates, `drift` those
    of all weighed gradients.
    """

    def __init__(
        self, benches: Benches, transcript: Transcript, unmoved: Unmoved, *, seed: int | None
    ) -> None:
        self._benches = benches
        self._transcript = transcript
        self._unmoved = unmoved
        self._judges: dict[MeshSizes, BoundedJudge] = {}
        self.seed = secrets.randbits(64) if seed is None else seed
        self.walk = PairwiseCosine()
        self.drift = DriftWatch(benches.materials.contract.numerics.class_)

    def judge(
        self, bench: Workbench, opened: Opened, signed: SignedRow, result: StepResult
    ) -> StepResult:
        """Return `result`, a step's exact result, weighed anew on the mesh of `bench`."""
        drift = self._drift_of(signed, bench)
        return self._judge_on(bench).judge(opened, signed.row, result, drift)

    def judge_beside(
        self, bench: Workbench, opened: Opened, signed: SignedRow, result: StepResult
    ) -> StepResult:
        """Return what `judge` returns, for a row off the line.

        What it leaves counts for neither walk nor drift: the step's own row has been added, and two
        residuals of one step may well lean one way.
        """
        judge = self._new_judge(bench, PairwiseCosine())
        return judge.judge(opened, signed.row, result, DriftAccumulator())

    def _judge_on(self, bench: Workbench) -> BoundedJudge:
        if bench.sizes not in self._judges:
            self._judges[bench.sizes] = self._new_judge(bench, self.walk)
        return self._judges[bench.sizes]

    def _new_judge(self, bench: Workbench, walk: PairwiseCosine) -> BoundedJudge:
        return BoundedJudge(
            self._benches.step_check(bench),
            self._unmoved,
            alg=self._transcript.genesis.alg,
            seed=self.seed,
            walk=walk,
        )

    def _drift_of(self, signed: SignedRow, bench: Workbench) -> DriftAccumulator:
        attempt = self._transcript.attempt_of(signed)
        stated = stated_class(attempt, self._transcript.genesis) or {}
        own = execution_class(bench.sizes.as_dict(), processes=jax.process_count())
        if self._benches.native:
            stated["plan"] = "native"
        return self.drift.of(stated, own)
