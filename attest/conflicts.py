"""Logged evidence that the trainer signed two stories."""

from collections.abc import Sequence
from typing import cast

from attest.check import refuse
from attest.envelope import Envelope, verify_signatures
from attest.errors import FormatError, RefusedError
from attest.keys import Role, keyid
from attest.lineage import Lineage
from attest.proof import RunProof
from attest.segment import RowMark, contradiction, mark_of
from attest.signers import Uncounted, check_signed
from attest.statements import (
    Attempt,
    Conflict,
    Final,
    Segment,
    Statement,
    Step,
    decode_statement,
)
from attest.trust import Policy

__all__ = ["check_conflicts"]


def check_conflicts(proof: RunProof, policy: Policy, lineage: Lineage) -> tuple[Uncounted, ...]:
    """Refuse a run with a conflict; return the conflict records that show none here.

    A conflict counts if its two envelopes are a conflict by themselves, whoever reported it, or if
    a reporter or monitor of the policy signed it.

    Raises:
        RefusedError: (check `conflict`).
    """
    bare: list[Uncounted] = []
    for record in proof.of_kind(Conflict):
        conflict = cast(Conflict, record.statement)
        if _contradict(conflict.first, conflict.second, lineage):
            refuse("conflict", f"{record.where} shows two records signed for one place of this run")
        for role in (Role.REPORTER, Role.MONITOR):
            entry = policy.find(record.signer, role)
            if entry is not None and entry.accuses(record.index):
                check_signed(record, {entry.keyid: entry.public})
                refuse("conflict", f"{record.where} is reported by {entry.operator}")
        bare.append(Uncounted(record, _why(conflict, lineage)))
    return tuple(bare)


def _why(conflict: Conflict, lineage: Lineage) -> str:
    """Say why a conflict by nobody of the policy shows nothing; "" where it is of no interest."""
    if lineage.attempts:
        return ""
    kinds = [_read(envelope) for envelope in (conflict.first, conflict.second)]
    unknown = any(isinstance(statement, Step | Segment) for statement in kinds)
    return "not shown: the keys of its attempt are not in the proof" if unknown else ""


def _contradict(first: Envelope, second: Envelope, lineage: Lineage) -> bool:
    place = _place(first, lineage)
    if place is not None and place == _place(second, lineage):
        return True
    return _rows_contradict(first, second, lineage)


def _place(envelope: Envelope, lineage: Lineage) -> tuple[str, int] | None:
    """Return the place in this run that a record takes alone; None if it takes none, or falsely."""
    statement = _read(envelope)
    if isinstance(statement, Final | Attempt):
        number = statement.number if isinstance(statement, Attempt) else 0
        signed = statement.run == lineage.run and _signed(envelope, [lineage.run_key.hex()])
        return (statement.KIND, number) if signed else None
    if isinstance(statement, Step) and _by_its_workers(envelope, statement, lineage):
        return (f"step of {statement.attempt}", statement.row.step)
    return None


def _rows_contradict(first: Envelope, second: Envelope, lineage: Lineage) -> bool:
    """Tell whether two segments, or a segment and a step, of one attempt exclude each other."""
    rows: dict[int, RowMark] = {}
    segments: list[Segment] = []
    attempts: set[str] = set()
    for envelope in (first, second):
        statement = _read(envelope)
        if not isinstance(statement, Step | Segment):
            return False
        if not _by_its_workers(envelope, statement, lineage):
            return False
        attempts.add(statement.attempt)
        if isinstance(statement, Segment):
            segments.append(statement)
        else:
            rows[statement.row.step] = mark_of(envelope)
    return len(attempts) == 1 and contradiction(rows, segments) is not None


def _by_its_workers(envelope: Envelope, statement: Step | Segment, lineage: Lineage) -> bool:
    """Tell whether the keys of its attempt signed a record of this run."""
    run = statement.row.run if isinstance(statement, Step) else statement.run
    # Where the attempts are too many to list, their keys are not known here, and anybody could have
    # made the pair: it is shown by who knows those keys, a reporter or monitor of the policy.
    for record in lineage.attempts:
        if record.hash == statement.attempt:
            workers = cast(Attempt, record.statement).worker_keys
            keys = workers if isinstance(statement, Step) else workers[:1]
            return run == lineage.run and _signed(envelope, keys)
    return False


def _read(envelope: Envelope) -> Statement | None:
    try:
        return decode_statement(envelope.payload)
    except FormatError:
        return None


def _signed(envelope: Envelope, publics: Sequence[str]) -> bool:
    keys = [bytes.fromhex(public) for public in publics]
    try:
        verify_signatures(envelope, {keyid(key): key for key in keys})
    except RefusedError:
        return False
    return True
