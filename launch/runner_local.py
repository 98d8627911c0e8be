"""Runs one worker in this process: no Ray, no second process, the first step soonest."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from anh_jax.run_directory import RunDirectory
from anh_jax.training.seams import AttemptGrant, AttemptRequest
from launch.attempt_broker import DirectBroker, Grant
from launch.interrupts import Interrupts
from launch.phases import Phase
from launch.run_outcome import DEFAULT_ENTRY, RunOutcome, load_entry

POLL_SECONDS = 0.1


class LocalReporter:
    """Passes a single worker's phases on, and Ctrl-C back."""

    def __init__(
        self,
        interrupts: Interrupts,
        stop_request: Path,
        on_phase: Callable[[Phase], None],
        on_poll: Callable[[], None],
    ) -> None:
        self._interrupts = interrupts
        self._stop_request = stop_request
        self._on_phase = on_phase
        self._on_poll = on_poll
        self._polled = 0.0
        self.stopped = False

    def phase(self, name: str, seconds: float) -> None:
        """Hand the phase on."""
        self._on_phase(Phase(name=name, seconds=seconds, writer="0"))

    def checkpoint(self, step: int, path: Path) -> None:
        """Need nothing: the next start looks in the run directory itself."""

    def should_stop(self) -> bool:
        """Tell whether Ctrl-C was pressed or a stop file lies in the run directory."""
        now = time.monotonic()
        if now - self._polled >= POLL_SECONDS:
            self._polled = now
            self._on_poll()
        self.stopped = self._interrupts.asked or self._stop_request.exists()
        return self.stopped


def run_locally(
    run_directory: Path,
    *,
    grant: Grant,
    on_phase: Callable[[Phase], None],
    on_poll: Callable[[], None] = lambda: None,
    entry: str = DEFAULT_ENTRY,
) -> RunOutcome:
    """Run one worker to its end; a second Ctrl-C raises KeyboardInterrupt at once.

    `grant` signs the attempt; `on_poll` is called between steps, ten times a second at most. What
    they or the worker raise passes through.
    """
    stop_request = RunDirectory(run_directory).stop_request
    stop_request.unlink(missing_ok=True)
    granted: list[AttemptGrant] = []

    def grant_and_keep(requests: Sequence[AttemptRequest]) -> AttemptGrant:
        granted.append(grant(requests))
        return granted[-1]

    with Interrupts() as interrupts:
        reporter = LocalReporter(interrupts, stop_request, on_phase, on_poll)
        load_entry(entry)(
            run_directory,
            rank=0,
            processes=1,
            broker=DirectBroker(grant_and_keep),
            reporter=reporter,
        )
    return RunOutcome(
        ending="interrupted" if reporter.stopped else "finished",
        attempts=tuple(granted),
        generations=1,
    )
