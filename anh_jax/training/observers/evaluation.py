"""Counts right answers on the hold-out set every so many steps and after the last one."""

from collections.abc import Callable, Mapping
from typing import Any

from anh_jax.training.loop import CompletedStep
from anh_jax.workbench import Counts


class Evaluation:
    """Evaluates every `every` steps (0: after the last one only); `counts` is the newest result.

    `evaluate` is called by every process of the mesh at the same steps.
    """

    def __init__(
        self, evaluate: Callable[[Mapping[str, Any]], Counts], *, every: int, last_step: int
    ) -> None:
        self._evaluate = evaluate
        self._every = every
        self._last_step = last_step
        self.counts: Counts | None = None

    def after_step(self, completed: CompletedStep) -> None:
        """Evaluate where the cadence says so."""
        due = self._every > 0 and completed.step % self._every == 0
        self.counts = None
        if due or completed.step == self._last_step:
            self.counts = self._evaluate(completed.state["parameters"])

    def row(self) -> dict[str, float | int]:
        """Return what this step's metrics row says about the hold-out set."""
        if self.counts is None:
            return {}
        return {
            "holdout_accuracy": self.counts.correct / max(self.counts.total, 1),
            "holdout_correct": self.counts.correct,
            "holdout_total": self.counts.total,
            "holdout_loss": self.counts.loss,
        }
