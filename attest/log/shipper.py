"""Copy what a run has signed into its log, beside the training loop.

The step files are the guarantee, the log follows: a shipper that was killed starts over, finds in
the log itself what is there already, and goes on. It needs no state of its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from attest.durable_file import read_file
from attest.envelope import MAX_ENVELOPE_BYTES, Envelope
from attest.errors import FormatError, InputError
from attest.keys import PrivateKey
from attest.log.joiner import AttemptJoiner, Joiner, Taken
from attest.log.run_log import RunLog
from attest.log.segment_joiner import SegmentJoiner
from attest.segment import segmented
from attest.statements import Attempt, decode_statement

BATCH = 256
_ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)\.json")
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Count the run's rows: signed by a host, in the log, under a published checkpoint."""

    signed: int
    logged: int
    checkpointed: int


class Shipper:
    """Log the statements and steps of a run directory, in a thread or by `drain` alone.

    Of an attempt that signs segments these are logged, not its steps.

    A disk or lock that fails is tried again, since nothing signed is lost meanwhile; `trouble` says
    so. Everything else ends the thread, and `check` and `drain` raise it.
    """

    def __init__(
        self,
        run_directory: str | Path,
        log: RunLog,
        *,
        author: bytes | None = None,
        checkpoint_seconds: float = 1.0,
        poll_seconds: float = 0.25,
    ) -> None:
        self._directory = Path(run_directory)
        self._log = log
        self._author = author
        self._checkpoint_seconds = checkpoint_seconds
        self._poll_seconds = poll_seconds
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shipper", daemon=True)
        self._joiners: dict[int, Joiner] = {}
        self._shipped: set[str] = set()
        self._pending = Taken([], 0)
        self._logged = 0
        self._checkpointed = 0
        self._unsigned = True
        self._signed_at = -checkpoint_seconds
        self._error: Exception | None = None
        self.trouble: InputError | None = None

    def start(self) -> Shipper:
        """Begin to ship in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread; what is not logged yet waits for the next shipper."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Shipper:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Hold the thread still inside a `with` block; it ships afterwards what is signed there."""
        with self._turn:
            yield

    @property
    def progress(self) -> Progress:
        """Return the counts for a progress bar."""
        signed = sum(joiner.signed for joiner in list(self._joiners.values()))
        return Progress(signed, self._logged, self._checkpointed)

    @property
    def lag(self) -> int:
        """Return how many rows are signed by a host but not in the log yet."""
        progress = self.progress
        return progress.signed - progress.logged

    def check(self) -> None:
        """Raise what has ended the thread, if anything has: the run must stop then."""
        if self._error is not None:
            raise self._error

    def drain(self) -> Progress:
        """Log all there is, the final record too if it is signed; return when it is checkpointed.

        Rows that some host has not signed stay behind.

        Raises:
            DivergenceError: if hosts signed different rows for one step.
            RefusedError: if the log refuses a record; the code says why.
            InputError: if files or log cannot be read or written.
        """
        self.check()
        with self._turn:
            while self._ship():
                continue
            self._ship_statement("final")
            self._checkpoint()
        return self.progress

    def _work(self) -> None:
        while not self._stopping.is_set():
            pause = self._poll_seconds
            try:
                with self._turn:
                    moved = self._ship()
                    due = time.monotonic() - self._signed_at >= self._checkpoint_seconds
                    if self._unsigned and due:
                        self._checkpoint()
                self.trouble = None
                pause = 0.0 if moved else pause
            except InputError as error:
                self.trouble, pause = error, _RETRY_SECONDS
            except Exception as error:  # whatever it is, the run must hear of it
                self._error = error
                return
            self._stopping.wait(pause)

    def _ship(self) -> bool:
        """Log statements that are new and one batch of rows; say whether there were any rows."""
        if self._pending.records:
            return self._flush()
        if not (self._ship_statement("contract") and self._ship_statement("genesis")):
            return False
        for number in self._attempt_numbers():
            # An attempt resumes from a row of one before: it comes after all rows that those have.
            if self._ship_statement(f"attempt-{number}"):
                self._pending = self._joiner(number).take(BATCH)
            if self._pending.records:
                return self._flush()
        return False

    def _flush(self) -> bool:
        """Log the pending rows; they stay pending until that has worked."""
        records = self._pending.records
        new = self._log.unlogged(records)
        self._log.append(new)
        self._unsigned = self._unsigned or bool(new)
        self._logged += self._pending.rows
        self._pending = Taken([], 0)
        return True

    def _ship_statement(self, name: str) -> bool:
        """Log a statement of the run directory; say whether it is there."""
        if name in self._shipped:
            return True
        path = self._statement_path(name)
        if not path.exists():
            return False
        envelope = _read_envelope(path)
        if self._log.index_of(envelope.record_hash()) is None:
            keys = [self._author_key()] if name == "contract" else []
            self._log.append([envelope], keys=keys)
            self._unsigned = True
        self._shipped.add(name)
        return True

    def _checkpoint(self) -> None:
        logged = self._logged
        self._log.checkpoint()
        self._checkpointed, self._unsigned = logged, False
        self._signed_at = time.monotonic()

    def _attempt_numbers(self) -> list[int]:
        names = (path.name for path in (self._directory / "statements").glob("attempt-*.json"))
        return sorted(int(match[1]) for name in names if (match := _ATTEMPT.fullmatch(name)))

    def _joiner(self, number: int) -> Joiner:
        if number not in self._joiners:
            path = self._statement_path(f"attempt-{number}")
            statement = decode_statement(_read_envelope(path).payload)
            if not isinstance(statement, Attempt) or statement.number != number:
                raise FormatError(f"{path}: is not the statement of attempt {number}", code="kind")
            kind = SegmentJoiner if segmented(statement) else AttemptJoiner
            self._joiners[number] = kind(self._directory / "steps", statement)
        return self._joiners[number]

    def _statement_path(self, name: str) -> Path:
        return self._directory / "statements" / f"{name}.json"

    def _author_key(self) -> bytes:
        """Return the contract author's public key: its statement names it by keyid only."""
        if self._author is None:
            self._author = PrivateKey.load(self._directory / "keys" / "author").public
        return self._author


def _read_envelope(path: Path) -> Envelope:
    try:
        return Envelope.from_bytes(read_file(path, MAX_ENVELOPE_BYTES))
    except FormatError as error:
        raise FormatError(f"{path}: {error}", code=error.code) from None
