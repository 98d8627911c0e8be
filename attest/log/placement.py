"""Whether a record may come at this place of the log: after what it names, and never too late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attest.keys import Role, keyid
from attest.log.register import AttemptState, LoggedRecord, Register
from attest.sample import commitment
from attest.statements import (
    Attempt,
    Audit,
    Final,
    Genesis,
    Intent,
    KeyEvent,
    Nonce,
    Property,
    Segment,
    Status,
    Step,
)

# Returns the logged record of a hash (hex), None if there is none.
Find = Callable[[str], LoggedRecord | None]


@dataclass(frozen=True, slots=True)
class Place:
    """Hold what is in the log `origin` before the record: `size` entries, what they leave behind.

    `find` looks up single records, those just before in the same batch too.
    """

    register: Register
    find: Find
    origin: str
    size: int


def misplaced(place: Place, entry: LoggedRecord) -> str | None:
    """Return the code of the refusal if the record may not come now, else None.

    The record's form and signatures have been checked: its run or attempt is in the register.
    """
    match entry.statement:
        case Step() as step:
            return _step(place, step, entry)
        case Segment() as segment:
            return _segment(place, segment)
        case Genesis() as genesis:
            known = genesis.contract in place.register.contracts
            return None if known else "contract-unknown"
        case Attempt() as attempt:
            return _attempt(place, attempt)
        case Final() as final:
            return _final(place, final)
        case Intent() as intent:
            return _intent(place, intent)
        case Nonce() as nonce:
            return _nonce(place, nonce, entry.signers)
        case Audit(run=run, final=final) | Property(run=run, final=final):
            state = place.register.runs.get(run)
            return None if state and state.final == final else "final-unknown"
        case Status() as status:
            return _status(place, status)
        case KeyEvent(origin=origin):
            return None if origin == place.origin else "key-origin"
        case _:
            return None


def _step(place: Place, step: Step, entry: LoggedRecord) -> str | None:
    line, row = place.register.attempts[step.attempt], step.row
    if code := _open_line(place, line, row.run):
        return code
    if line.start < row.step <= line.step:
        return "step-conflict"
    if row.step != line.step + 1:
        return "step-order"
    if row.prev != _previous_row_hash(place, line, line.tail):
        return "step-prev"
    # The row that the last segment ends with, told again by a step, must be the same.
    if row.step == line.segment and line.segment_tail != entry.row_hash():
        return "segment-conflict"
    return None


def _segment(place: Place, segment: Segment) -> str | None:
    line = place.register.attempts[segment.attempt]
    if code := _open_line(place, line, segment.run):
        return code
    if line.start < segment.first <= line.segment:
        return "segment-conflict"
    if segment.first != line.segment + 1:
        return "segment-order"
    if segment.prev != _previous_row_hash(place, line, line.segment_tail):
        return "segment-prev"
    differs = segment.last == line.step and line.tail != segment.last_row
    return "segment-conflict" if differs else None


def _open_line(place: Place, line: AttemptState, run: str) -> str | None:
    if run != line.run:
        return "step-run"
    return "run-closed" if place.register.runs[run].final else None


def _previous_row_hash(place: Place, line: AttemptState, tail: str | None) -> str | None:
    """Return the hash of the row to follow: `tail`, or the row that the attempt resumes from."""
    if tail is not None:
        return tail
    if line.resumed_from == line.run:
        return line.run  # row 0 is genesis, and its hash is the run
    resumed = place.find(line.resumed_from)
    known = resumed is not None and isinstance(resumed.statement, Step | Segment)
    return resumed.row_hash() if resumed is not None and known else None


def _attempt(place: Place, attempt: Attempt) -> str | None:
    run = place.register.runs[attempt.run]
    if run.final:
        return "run-closed"
    if attempt.number <= run.attempts:
        return "attempt-number"
    # A worker key with another role could never sign: say so before the first step is lost.
    workers = (keyid(bytes.fromhex(key)) for key in attempt.worker_keys)
    roles = place.register.roles
    if any(roles.get(worker, Role.WORKER) is not Role.WORKER for worker in workers):
        return "key-role"
    if attempt.resumed_from == attempt.run:
        return None
    match place.find(attempt.resumed_from):
        case LoggedRecord(statement=Step(row=row)) if row.run == attempt.run:
            return None if row.step == attempt.step else "attempt-origin"
        case LoggedRecord(statement=Segment(run=of, last=last)) if of == attempt.run:
            return None if last == attempt.step else "attempt-origin"
        case _:
            return "attempt-origin"


def _final(place: Place, final: Final) -> str | None:
    if place.register.runs[final.run].final:
        return "final-conflict"
    # After the final nothing of the run is admitted: coming too early, it would shut steps out.
    return None if final.steps <= place.register.runs[final.run].reached else "final-early"


def _intent(place: Place, intent: Intent) -> str | None:
    if intent.about == "contract":
        return None if intent.target in place.register.contracts else "contract-unknown"
    run = place.register.runs.get(intent.target)
    if run is None:
        return "run-unknown"
    return "run-closed" if run.final else None


def _nonce(place: Place, nonce: Nonce, signers: tuple[str, ...]) -> str | None:
    logged = place.find(nonce.intent)
    if logged is None or logged.signers != signers or not isinstance(logged.statement, Intent):
        return "intent-unknown"
    intent = logged.statement
    if commitment(bytes.fromhex(nonce.nonce)).hex() != intent.commitment:
        return "nonce-commitment"
    # Whoever knows the nonce before the final can choose the final by the sample that it draws.
    if intent.about == "run" and not place.register.runs[intent.target].final:
        return "nonce-early"
    return None


def _status(place: Place, status: Status) -> str | None:
    if status.contract not in place.register.contracts:
        return "contract-unknown"
    if status.log.origin != place.origin or status.log.size > place.size:
        return "status-head"
    return None
