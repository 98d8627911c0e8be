"""Finds the first refuted step on another execution class: by judging each step that is shown.

States of two classes part within a few steps however honest both are, so nothing can be halved
there. But a single step can be weighed within bounds wherever it runs, once its state before, its
gradient and its state after are shown (docs/numerics.md, "Bounded"). So each shown step is judged,
in order, and the first that is refuted ends the scan: T steps take T judgements, not log2(T).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from anh_jax.audit.bisect import FirstStep, RunSearch, Stretch
from anh_jax.audit.bounded import Opened
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Reached
from anh_jax.audit.results import StepResult
from anh_jax.audit.weighing import Weighing


@dataclass(frozen=True)
class Scanned:
    """What a scan found: the first refuted step, or none among the `judged` steps.

    `unseen` are the steps that nothing could be said of, with the reason of the first.
    """

    stretch: Stretch
    first: FirstStep | None
    judged: int
    unseen: tuple[int, ...]
    reason: str = ""


class StepScan:
    """Judges the shown steps of a run one by one; `kept` is what shows them."""

    def __init__(self, search: RunSearch, kept: KeptStates) -> None:
        self._search = search
        self._kept = kept
        transcript = search.transcript
        self._weighing = Weighing(search.benches, transcript, search.unmoved, seed=None)

    def scan(
        self, stretch: Stretch | None = None, told: Callable[[StepResult], None] | None = None
    ) -> Scanned:
        """Judge the steps of a stretch, by default the whole run, up to the first refuted one.

        `told` is called with each result. Raises AnhError where the stretch is none of the run's.
        """
        found = self._search.within(stretch)
        unseen: list[int] = []
        reason, judged = "", 0
        for step in range(found.start + 1, found.stop + 1):
            first = self._step(step)
            result = first if isinstance(first, StepResult) else first.result
            if told is not None:
                told(result)
            if result.outcome == "unattestable":
                unseen.append(step)
                reason = reason or result.words
                continue
            judged += 1
            if isinstance(first, FirstStep) and result.outcome == "refuted":
                return Scanned(found, first, judged, tuple(unseen), reason)
        return Scanned(found, None, judged, tuple(unseen), reason)

    def _step(self, step: int) -> FirstStep | StepResult:
        before = self._before(step)
        if before is None:
            return StepResult(step, "unattestable", self._kept.missing(step - 1))
        judged = self._search.judged(before)
        result = judged.result
        if result.outcome == "unattestable":
            signed = self._search.rows[step - 1]
            bench = self._search.benches.of(self._search.transcript.attempt_of(signed))
            outputs = judged.outputs or self._kept.outputs(step, bench)
            after = judged.after or self._kept.state(step, bench)
            if outputs is None or after is None:
                words = f"{self._kept.missing(step)}; {result.words}"
                result = dataclasses.replace(result, words=words)
            else:
                opened = Opened(before.state, outputs, after, exact=False)
                result = self._weighing.judge(bench, opened, signed, result)
        return self._search.named(before, result)

    def _before(self, step: int) -> Reached | None:
        """Return the committed state before a step, if it is shown; nothing is replayed."""
        if step == 1 and (first := self._search.first) is not None:
            return first
        row = self._search.rows[max(step - 2, 0)]
        bench = self._search.benches.of(self._search.transcript.attempt_of(row))
        state = self._kept.state(step - 1, bench)
        return None if state is None else Reached(step - 1, state)
