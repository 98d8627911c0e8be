"""What a run has signed, read from its envelopes: the one source of an audit's facts about it.

The envelopes come from the run's log, which keeps what was signed: the files of a run directory are
the trainer's to change, a log's entries are not. Where the log holds segments, the rows are in such
files all the same, and count only as far as they are what a logged segment commits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from anh_jax.errors import AnhError
from anh_jax.line import BrokenLineError, Line, SignedRow, line_of
from attest.attempt_rows import RowsWithheldError
from attest.envelope import Envelope
from attest.errors import RefusedError
from attest.statements import Attempt, Final, Genesis, Segment, Step, decode_statement

# Returns the rows that a logged segment of an attempt commits, or raises RefusedError.
RowsOf = Callable[[Attempt, Envelope], Sequence[Envelope]]


@dataclass(frozen=True)
class SignedRun:
    """What a run has signed so far: genesis, its attempts by number, and its line of rows."""

    run: str
    genesis: Genesis
    attempts: Mapping[int, Attempt]
    line: Line

    def state_root(self, step: int) -> str | None:
        """Return the committed digest of the state after a step; None where the policy skips it."""
        if step == 0:
            return self.genesis.state_root
        return self.line.rows[step - 1].row.state_root

    def attempt_of(self, signed: SignedRow) -> Attempt:
        """Return the attempt that signed a row."""
        return self.attempts[signed.attempt]


@dataclass(frozen=True)
class Transcript(SignedRun):
    """A closed run: its statements by kind, and the line of rows that its final record closes.

    `fault` says why the rows form no line, `missing` why some of them are not at hand, which
    refutes nothing; `line` is empty then.
    """

    final: Final
    final_record: str
    fault: str
    missing: str = ""


def read_transcript(
    envelopes: Iterable[Envelope], *, run: str, rows_of: RowsOf | None = None
) -> Transcript:
    """Read the statements of one run (its id, hex), in any order; others are passed over.

    `rows_of` finds the rows of segments. Raises AnhError where the run has no genesis or no final
    record among them, or two.
    """
    genesis: list[Genesis] = []
    finals: dict[str, Final] = {}
    attempts: dict[str, Attempt] = {}
    steps: list[Envelope] = []
    segments: list[Envelope] = []
    for envelope in envelopes:
        record = envelope.record_hash().hex()
        match decode_statement(envelope.payload):
            case Genesis() as found if record == run:
                genesis.append(found)
            case Attempt(run=of) as found if of == run:
                attempts[record] = found
            case Final(run=of) as found if of == run:
                finals[record] = found
            case Step(row=row) if row.run == run:
                steps.append(envelope)
            case Segment(run=of) if of == run:
                segments.append(envelope)
            case _:
                continue
    if not genesis or len(finals) != 1:
        raise AnhError(f"run {run[:16]}: no genesis or no single final record; the run is not over")
    refusal = _add_rows(steps, segments, attempts, rows_of)
    rows = _rows(steps, attempts)
    line = Line(run=bytes.fromhex(run), rows=(), stale=(), divergences=())
    fault = "" if rows else "no row is signed"
    try:
        line = line_of(rows, run_id=bytes.fromhex(run))
    except BrokenLineError as error:
        fault = error.fault
    missing = ""
    if refusal is not None:
        line = Line(run=line.run, rows=(), stale=(), divergences=())
        withheld = isinstance(refusal, RowsWithheldError)
        fault, missing = ("", str(refusal)) if withheld else (str(refusal), "")
    ((record, final),) = finals.items()
    return Transcript(
        run=run,
        genesis=genesis[0],
        attempts={attempt.number: attempt for attempt in attempts.values()},
        line=line,
        final=final,
        final_record=record,
        fault=fault,
        missing=missing,
    )


def _add_rows(
    steps: list[Envelope],
    segments: Iterable[Envelope],
    attempts: Mapping[str, Attempt],
    rows_of: RowsOf | None,
) -> RefusedError | None:
    """Add the rows of segments to the steps; return why some of them cannot be, None if all can.

    A row that the log holds as a step too is not added again.
    """
    known = {envelope.record_hash() for envelope in steps}
    for envelope in segments:
        statement = decode_statement(envelope.payload)
        if not isinstance(statement, Segment) or statement.attempt not in attempts:
            continue
        if rows_of is None:
            return RowsWithheldError("the log holds segments, and their rows are not at hand")
        try:
            found = rows_of(attempts[statement.attempt], envelope)
        except RefusedError as error:
            return error
        steps.extend(row for row in found if row.record_hash() not in known)
    return None


def _rows(steps: Iterable[Envelope], attempts: Mapping[str, Attempt]) -> list[SignedRow]:
    """Return the rows of known attempts, attempt by attempt."""
    rows: list[SignedRow] = []
    for envelope in steps:
        statement = decode_statement(envelope.payload)
        if not isinstance(statement, Step) or statement.attempt not in attempts:
            continue
        rows.append(
            SignedRow(
                row=statement.row,
                row_hash=statement.row.hash(),
                record_hash=envelope.record_hash(),
                attempt=attempts[statement.attempt].number,
            )
        )
    return sorted(rows, key=lambda signed: (signed.attempt, signed.row.step))
