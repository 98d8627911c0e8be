"""Judges rows off the line: a step that a stale branch shares with the line, from one state.

Both rows must hold. Where the branch was computed on another execution class its bits say nothing,
and its step is weighed within bounds like any other, if what it commits can be opened: a training
checkpoint of the branch, or what `anh replay --attempt N --out` wrote where the branch was
trained. A branch ends where something broke, so that nothing of it is left is no withholding.
"""

import dataclasses

from anh_jax.audit.benches import Benches
from anh_jax.audit.bounded import Opened
from anh_jax.audit.exact import Judged
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Reached
from anh_jax.audit.results import StepResult, graver
from anh_jax.audit.transcript import Transcript
from anh_jax.audit.weighing import Weighing
from anh_jax.line import SignedRow


class Branches:
    """Weighs the rows of stale branches that bits alone cannot judge."""

    def __init__(
        self, benches: Benches, transcript: Transcript, kept: KeptStates, weighing: Weighing
    ) -> None:
        self._benches = benches
        self._transcript = transcript
        self._kept = kept
        self._weighing = weighing

    def join(
        self, result: StepResult, before: Reached, stale: SignedRow, judged: Judged
    ) -> StepResult:
        """Return the graver of `result`, the line's, and that of a row beside it.

        `judged` is the row's by its bits; `before` the committed state that both start from.
        """
        beside = self._weigh(before, stale, judged)
        words = f"attempt {stale.attempt}, off the line: {beside.words}"
        if result.outcome == beside.outcome == "pass" and beside.a is not None:
            # It rests on tolerances too, which nothing else of an exact result would say.
            return dataclasses.replace(result, words=f"{result.words}; {words}")
        return graver(result, dataclasses.replace(beside, words=words))

    def _weigh(self, before: Reached, stale: SignedRow, judged: Judged) -> StepResult:
        if judged.result.outcome != "unattestable":
            return judged.result
        bench = self._benches.of(self._transcript.attempt_of(stale))
        outputs = judged.outputs or self._kept.branch_outputs(stale, bench)
        after = judged.after or self._kept.branch_state(stale, bench)
        if outputs is None or after is None:
            return judged.result
        opened = Opened(before.state, outputs, after, exact=False)
        return self._weighing.judge_beside(bench, opened, stale, judged.result)
