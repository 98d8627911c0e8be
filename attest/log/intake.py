"""Takes submissions from many callers and commits them together: one transaction for all that wait.

An outcome is given once its records are on the disk. When the intake closes, whatever it has taken
on is committed and answered first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from attest.errors import AttestError, InputError
from attest.log.submission import Outcome, Submission
from attest.rejections import RejectedError, reject

# Records in one transaction: enough to share one sync of the disk, few enough to answer soon.
_MOST_TOGETHER = 1024
_MOST_WAITING = 16 * 1024
_PAUSE_SECONDS = 0.5


class Submittable(Protocol):
    """Log submissions in one transaction; `LocalLog` does."""

    def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """Return what became of each, once it is on the disk."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    submission: Submission
    outcome: Future[Outcome]


class Intake:
    """Commit in a thread of its own, in the order of arrival.

    `trouble` is what the last commit failed of, None if it went well; `broken` is what ended the
    thread: the log is damaged, and nothing more is taken.
    """

    def __init__(self, log: Submittable) -> None:
        self._log = log
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._records = 0
        self._closing = False
        self.trouble: InputError | None = None
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def close(self) -> None:
        """Commit and answer what was taken on, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Return how many records wait for a commit."""
        return self._records

    def submit(self, submission: Submission) -> Future[Outcome]:
        """Take records on; the future has their outcome once it is on the disk.

        Raises:
            RejectedError: `busy` or `unavailable`, now or from the future; the caller may submit
                the same again, whatever became of it.
        """
        waiting = _Waiting(submission, Future())
        with self._changed:
            if self._closing:
                reject("unavailable", "a submission", "the service is shutting down")
            if self.broken is not None:
                reject("unavailable", "a submission", f"the log is closed: {self.broken}")
            if self._records >= _MOST_WAITING:
                reject("busy", "a submission", f"{self._records} records wait")
            self._queue.append(waiting)
            self._records += _weight(submission)
            self._changed.notify()
        return waiting.outcome

    def _work(self) -> None:
        while batch := self._next():
            try:
                outcomes = self._log.submit([waiting.submission for waiting in batch])
            except InputError as error:
                self.trouble = error
                _fail(batch, error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, _PAUSE_SECONDS)
            except Exception as error:  # a damaged log: whoever waits must hear of it
                self.broken = error
                _fail(batch + self._all(), error)
                return
            else:
                self.trouble = None
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    waiting.outcome.set_result(outcome)

    def _next(self) -> list[_Waiting]:
        """Wait for submissions; return those of the next transaction, none when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            batch: list[_Waiting] = []
            records = 0
            while self._queue and records < _MOST_TOGETHER:
                batch.append(self._queue.popleft())
                records += _weight(batch[-1].submission)
            self._records -= records
            return batch

    def _all(self) -> list[_Waiting]:
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
            self._records = 0
            return left


def _weight(submission: Submission) -> int:
    return len(submission.records) + 1


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    words = str(error) if isinstance(error, AttestError) else type(error).__name__
    for waiting in batch:
        waiting.outcome.set_exception(
            RejectedError(f"the log cannot write: {words}", check="unavailable")
        )
