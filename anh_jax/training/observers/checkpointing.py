"""Saves the training state every so many steps, once its row is durable."""

from collections.abc import Callable

from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.loop import CompletedStep


class Checkpointing:
    """Saves after every `every`-th step, after the last one, and when `now` asks for it.

    `position` returns the newest signed row's place, having made it durable: a training checkpoint
    never names a row that a crash could take away.
    """

    def __init__(
        self,
        checkpoints: TrainingCheckpoints,
        *,
        every: int,
        last_step: int,
        position: Callable[[], Position],
        saved: Callable[[int], None],
    ):
        self._checkpoints = checkpoints
        self._every = every
        self._last_step = last_step
        self._position = position
        self._saved = saved
        self.newest = 0

    def after_step(self, completed: CompletedStep) -> None:
        """Save where the cadence says so."""
        if completed.step % self._every == 0 or completed.step == self._last_step:
            self.save(completed)

    def save(self, completed: CompletedStep) -> None:
        """Save this step's state, once."""
        if self.newest == completed.step:
            return
        self._checkpoints.save(completed.step, completed.state, self._position())
        self.newest = completed.step
        self._saved(completed.step)
