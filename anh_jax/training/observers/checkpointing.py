"""Saves the training state every so many steps, once its row is durable, and when asked to stop."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.loop import CompletedStep


@runtime_checkable
class Announce(Protocol):
    """Takes the step of a training checkpoint that is durable now."""

    def __call__(self, step: int) -> None:
        """Note the step."""
        ...


class Checkpointing:
    """Saves after every `every`-th step, after the last one, and before a stop.

    `place` makes the newest signed row durable and returns where it stands: a training checkpoint
    never names a row that a crash could take away. `should_stop` is asked exactly once a step, as
    all ranks must answer alike. `announce` is told of each checkpoint once it is durable. Where
    `may_save` says no, saving, and a stop with it, waits for the next step that may.
    """

    def __init__(
        self,
        checkpoints: TrainingCheckpoints,
        *,
        every: int,
        last_step: int,
        place: Callable[[], Position],
        should_stop: Callable[[], bool],
        announce: Announce,
        may_save: Callable[[int], bool] = lambda step: True,
    ) -> None:
        self._checkpoints = checkpoints
        self._every = every
        self._last_step = last_step
        self._place = place
        self._should_stop = should_stop
        self._announce = announce
        self._may_save = may_save
        self._due = False
        self._asked_to_stop = False
        self._pending: int | None = None
        self.stopping = False

    def after_step(self, completed: CompletedStep) -> None:
        """Save where the cadence or a wish to stop says so."""
        step = completed.step
        self._asked_to_stop = self._should_stop() or self._asked_to_stop
        at_last = step == self._last_step
        self._due = self._due or self._asked_to_stop or step % self._every == 0 or at_last
        if self._due and self._may_save(step):
            self._due, self.stopping = False, self._asked_to_stop
            self.finish()
            self._checkpoints.save(step, completed.state, self._place())
            self._pending = step

    def stop(self, step: int) -> bool:
        """Say whether the loop ends after `step`."""
        return self.stopping

    def finish(self) -> None:
        """Wait until the last save is durable and announce it."""
        if self._pending is not None:
            self._checkpoints.wait()
            self._announce(self._pending)
            self._pending = None
