"""The rows of one attempt as its hosts keep them, for readers of a log that holds segments.

A segment commits rows that are in no log: they are in the run's step files, one file a host. Here
they are read again, every host's signature is checked, and they are compared with the segment.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from attest import step_file
from attest.envelope import Envelope, verify_signatures
from attest.errors import AttestError, RefusedError
from attest.keys import keyid
from attest.segment import CHECK, RowMark, check_rows, contradiction, mark_of
from attest.statements import Attempt, Segment, Step, decode_statement

__all__ = ["AttemptRows", "OtherRowsError", "RowsWithheldError"]


class RowsWithheldError(RefusedError):
    """Report that rows are not at hand: lost, damaged, or never shown. That refutes nobody."""

    def __init__(self, message: str) -> None:
        super().__init__(message, check=CHECK)


class OtherRowsError(RefusedError):
    """Report that a segment commits other rows than its signer signed: `rows` are all of them."""

    def __init__(self, message: str, *, rows: tuple[Envelope, ...]) -> None:
        super().__init__(message, check=CHECK)
        self.rows = rows


class AttemptRows:
    """Read the rows of an attempt from the folder of step files, forward, segment by segment.

    `record` is the attempt's record hash, in hex.
    """

    def __init__(self, steps: Path, attempt: Attempt, record: str) -> None:
        self._record = record
        self._number = attempt.number
        paths = [steps / f"{attempt.number}-{rank}.jsonl" for rank in range(attempt.processes)]
        keys = [bytes.fromhex(key) for key in attempt.worker_keys]
        self._hosts = [
            (path, {keyid(key): key}, step_file.read(path))
            for path, key in zip(paths, keys, strict=True)
        ]

    def take(self, segment: Segment) -> tuple[Envelope, ...]:
        """Return the rows that the next segment commits, each under all hosts' signatures.

        Raises:
            RefusedError: (check `segment rows`) where hosts signed what is no such row; a
                `RowsWithheldError` where a row is missing or without a host's signature, an
                `OtherRowsError` where the hosts signed them all and the segment commits others.
        """
        where = f"attempt {self._number}, segment of steps {segment.first} to {segment.last}"
        rows: list[Envelope] = []
        marks: list[RowMark] = []
        for step in range(segment.first, segment.last + 1):
            rows.append(self._row(f"{where}: step {step}", step))
            marks.append(mark_of(rows[-1]))
        try:
            check_rows(segment, marks)
        except RefusedError as error:
            message = f"attempt {self._number}, {error} (as its hosts signed them)"
            # Rows that are the segment's, but do not follow each other, are no second story.
            if contradiction({mark.step: mark for mark in marks}, [segment]) is None:
                raise RefusedError(message, check=CHECK) from None
            raise OtherRowsError(message, rows=tuple(rows)) from None
        return tuple(rows)

    def _row(self, where: str, step: int) -> Envelope:
        signed = [self._signed(path, keys, lines, where) for path, keys, lines in self._hosts]
        first = signed[0]
        for row, (path, _, _) in zip(signed, self._hosts, strict=True):
            found = self._step(row, where)
            if found != step:
                raise RowsWithheldError(f"{where}: {path.name} has step {found} in its place")
        if any(row.payload != first.payload for row in signed):
            raise RefusedError(f"{where}: hosts signed different rows", check=CHECK)
        signatures = (row.signatures[0] for row in signed)
        return Envelope(first.payload, tuple(sorted(signatures, key=lambda s: s.keyid)))

    def _step(self, signed: Envelope, where: str) -> int:
        """Return the step of a row that a host signed for this attempt."""
        try:
            statement = decode_statement(signed.payload)
        except AttestError as error:
            raise RefusedError(f"{where}: no row, though signed: {error}", check=CHECK) from None
        if not isinstance(statement, Step) or statement.attempt != self._record:
            raise RefusedError(f"{where}: no row of this attempt", check=CHECK)
        return statement.row.step

    def _signed(
        self, path: Path, keys: Mapping[str, bytes], lines: Iterator[Envelope], where: str
    ) -> Envelope:
        """Return the next line of one host's file, signed by that host."""
        try:
            envelope = next(lines, None)
            if envelope is not None:
                verify_signatures(envelope, keys)
        except AttestError as error:
            raise RowsWithheldError(f"{where}: {path.name}: {error}") from None
        if envelope is None:
            raise RowsWithheldError(f"{where}: {path.name} ends before it")
        return envelope
