"""Lets all ranks stop at the same step, without asking anything of a step that goes on.

Ranks learn of a stop request at different moments and may be a step apart, but a checkpoint needs
all of them at one step. Each rank therefore has a watcher beside its training thread. A watcher
that sees the request holds its rank at the next question, publishes how many questions the rank
has asked so far, and waits for the other ranks' counts; the rank stops at the question after the
largest of them. Watchers never wait for training threads, so a rank that is held cannot keep
another's count back, and no rank can pass the agreed question before it is agreed.
"""

import threading
import time
from pathlib import Path

from launch.attempt_files import AttemptFiles, read_json, write_json
from launch.errors import CommandError

WATCH_SECONDS = 0.2
AGREE_SECONDS = 60.0


class StopError(CommandError):
    """Report ranks that could not agree where to stop."""


class StopAgreement:
    """One rank's part; `should_stop` is asked exactly once a step by every rank."""

    def __init__(
        self,
        files: AttemptFiles,
        generation: str,
        *,
        rank: int,
        processes: int,
        request: Path,
        seconds: float = AGREE_SECONDS,
    ) -> None:
        self._files = files
        self._generation = generation
        self._rank = rank
        self._processes = processes
        self._request = request
        self._seconds = seconds
        self._lock = threading.Lock()
        self._calls = 0
        self._stop_at: int | None = None
        self._failure: StopError | None = None
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="anh-stop", daemon=True)
        self._watcher.start()

    def should_stop(self) -> bool:
        """Count one question and answer it; waits while the ranks agree.

        Raises StopError when a rank published nothing within the agreement's seconds.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._calls += 1
            stop = self._stop_at is not None and self._calls >= self._stop_at
        if stop and self._rank == 0:
            write_json(self._files.stopped(self._generation), {"calls": self._calls})
        return stop

    def close(self) -> None:
        """End the watcher; a rank that is through tells those that may still be counting."""
        self._closed.set()
        self._watcher.join()
        if self._processes > 1 and self._stop_at is None:
            self._publish()

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            if self._request.exists():
                with self._lock:
                    self._agree()
                return

    def _agree(self) -> None:
        self._publish()
        deadline = time.monotonic() + self._seconds
        waiting = set(range(self._processes))
        largest = 0
        while waiting:
            for rank in sorted(waiting):
                found = read_json(self._files.calls(self._generation, rank))
                if found is not None:
                    largest = max(largest, int(found["calls"]))
                    waiting.discard(rank)
            if waiting and (self._closed.wait(0.02) or time.monotonic() > deadline):
                self._failure = StopError(
                    f"rank {self._rank}: ranks {sorted(waiting)} did not say where they are within "
                    f"{self._seconds:g} s; press Ctrl-C again to stop at once"
                )
                return
        self._stop_at = largest + 1

    def _publish(self) -> None:
        write_json(self._files.calls(self._generation, self._rank), {"calls": self._calls})
