"""The one line of a run: the rows from genesis to the newest step, and the branches beside it.

Every attempt appends rows to files of its own. A resumed attempt starts at an earlier step, so two
attempts may both hold a row for the same step; they are equal where the class is exact. The line
is found from its end by following `prev`, never by taking the newest row of each step
(docs/protocol.md, "One line").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anh_jax.errors import AnhError
from anh_jax.run_directory import RunDirectory
from attest import step_file
from attest.statements import Row, Segment, Step, decode_statement


@dataclass(frozen=True, slots=True)
class SignedRow:
    """One row as one attempt signed it."""

    row: Row
    row_hash: bytes
    record_hash: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class Line:
    """The rows 1..n on the line, and what lies off it.

    `divergences` are the steps at which a stale branch left the line although both started from
    the same state: none where the execution class is exact.
    """

    run: bytes
    rows: tuple[SignedRow, ...]
    stale: tuple[SignedRow, ...]
    divergences: tuple[int, ...]

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Return the row hashes 0..n; row 0 is genesis and its hash is the run id."""
        return (self.run, *(row.row_hash for row in self.rows))

    def overlapped(self) -> dict[int, int]:
        """Map each attempt that left stale rows to the first step it shares with the line."""
        first: dict[int, int] = {}
        for signed in self.stale:
            if signed.row.step <= len(self.rows):
                step = min(first.get(signed.attempt, signed.row.step), signed.row.step)
                first[signed.attempt] = step
        return first


def signed_rows(run: RunDirectory) -> Iterator[SignedRow]:
    """Yield every row of the run as rank 0 signed it, attempt by attempt.

    Raises FormatError naming file and line where a step file is damaged before its last line.
    """
    for attempt in run.attempts():
        path = run.step_file(attempt=attempt, rank=0)
        if not path.exists():
            continue
        for envelope in step_file.read(path):
            statement = decode_statement(envelope.payload)
            if not isinstance(statement, Step):
                raise AnhError(f"{path}: holds a statement that is no step; move the file away")
            yield SignedRow(
                row=statement.row,
                row_hash=statement.row.hash(),
                record_hash=envelope.record_hash(),
                attempt=attempt,
            )


@dataclass(frozen=True, slots=True)
class SignedSegment:
    """One segment as an attempt's first worker signed it; `record` is its record hash in hex."""

    segment: Segment
    record: str
    attempt: int


def signed_segments(run: RunDirectory) -> Iterator[SignedSegment]:
    """Yield every segment of the run, attempt by attempt; none where steps are logged.

    Raises FormatError naming file and line where a file is damaged before its last line.
    """
    for attempt in run.attempts():
        path = run.segment_file(attempt=attempt)
        for envelope in step_file.read(path) if path.exists() else ():
            statement = decode_statement(envelope.payload)
            if not isinstance(statement, Segment):
                raise AnhError(f"{path}: holds a statement that is no segment; move the file away")
            yield SignedSegment(statement, envelope.record_hash().hex(), attempt)


class BrokenLineError(AnhError):
    """Report rows that do not lead from the newest one back to genesis; `fault` says where."""

    exit_code = 1

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


def walk_line(run: RunDirectory, *, run_id: bytes) -> Line:
    """Follow `prev` from the newest attempt's last row back to genesis.

    Raises AnhError where the chain is broken: a row is missing, or steps do not count down by one.
    """
    try:
        return line_of(list(signed_rows(run)), run_id=run_id)
    except BrokenLineError as error:
        raise AnhError(f"{run.root}: {error.fault}; restore the steps/ files") from error


def line_of(rows: Sequence[SignedRow], *, run_id: bytes) -> Line:
    """Find the line among all rows of a run; raises BrokenLineError where there is none."""
    if not rows:
        return Line(run=run_id, rows=(), stale=(), divergences=())
    # Of rows equal in hash the newest attempt's stands on the line: it is the record that later
    # attempts resume from.
    by_hash = {signed.row_hash: signed for signed in rows}
    newest = max(rows, key=lambda signed: (signed.attempt, signed.row.step))
    line: list[SignedRow] = []
    cursor = newest
    while True:
        line.append(cursor)
        previous = bytes.fromhex(cursor.row.prev)
        if previous == run_id:
            break
        if previous not in by_hash:
            raise BrokenLineError(f"step {cursor.row.step} follows a row that nobody has signed")
        cursor = by_hash[previous]
    line.reverse()
    if [signed.row.step for signed in line] != list(range(1, len(line) + 1)):
        raise BrokenLineError("the rows of the line do not count 1, 2, 3, ...")
    return _beside(run_id, line, rows)


def _beside(run_id: bytes, line: list[SignedRow], rows: Sequence[SignedRow]) -> Line:
    on_line = {signed.record_hash for signed in line}
    stale = tuple(signed for signed in rows if signed.record_hash not in on_line)
    divergent = {
        signed.row.step
        for signed in stale
        if signed.row.step <= len(line)
        and signed.row_hash != line[signed.row.step - 1].row_hash
        and signed.row.prev == line[signed.row.step - 1].row.prev
    }
    return Line(run=run_id, rows=tuple(line), stale=stale, divergences=tuple(sorted(divergent)))
