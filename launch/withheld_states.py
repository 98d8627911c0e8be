"""Evidence of states that an audit asked for and did not get, written beside its results."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anh_jax.audit.state_source import Asked, Withheld
from anh_jax.audit.transcript import SignedRun
from anh_jax.line import SignedRow
from anh_jax.run_directory import RunDirectory
from attest import step_file
from attest.durable_file import replace_file
from attest.envelope import Envelope
from attest.errors import RefusedError
from attest.log.run_log import RunLog
from attest.served_tree import TreeClaim
from attest.state_evidence import (
    CommittedBy,
    SignedClaim,
    WithheldReport,
    WithheldTree,
    check_state_equivocation,
    encode_state_equivocation,
    encode_withheld,
)
from attest.statements import Step, decode_statement
from launch.auditor_name import AuditorName


@dataclass(frozen=True, slots=True)
class Evidence:
    """The files of what was not shown; None where there is none of the kind.

    `withheld` is the auditor's own report. `equivocation` needs nobody's word: the run key signed
    another digest than its row.
    """

    withheld: Path | None = None
    equivocation: Path | None = None


def write_evidence(
    withheld: Sequence[Withheld],
    results: Path,
    *,
    who: AuditorName,
    signed: SignedRun,
    source: str,
    log: RunLog,
    run: RunDirectory,
) -> Evidence:
    """Write what was asked and answered beside the audit's results, `<n>.withheld.json`.

    The first contradiction under the run key's signature goes to `<n>.equivocation.json`.
    """
    if not withheld:
        return Evidence()
    report = WithheldReport(
        run=signed.run,
        auditor=_line(who.operator),
        source=_line(source),
        at=int(time.time()),
        trees=tuple(_tree(one) for one in withheld),
    )
    path = results.with_suffix(".withheld.json")
    replace_file(path, encode_withheld(report, who.key))
    both = (_equivocation(one, signed, log, run) for one in withheld)
    data = next((found for found in both if found is not None), None)
    if data is None:
        return Evidence(withheld=path)
    second = results.with_suffix(".equivocation.json")
    replace_file(second, data)
    return Evidence(withheld=path, equivocation=second)


def _tree(one: Withheld) -> WithheldTree:
    return WithheldTree(
        part=one.asked.part,
        step=one.asked.step,
        row=one.asked.row,
        committed=one.asked.committed,
        answer=one.answer,
        words=_line(one.words),
        path=_line(one.path),
        tile=one.tile,
        digest=one.digest,
    )


def _equivocation(one: Withheld, signed: SignedRun, log: RunLog, run: RunDirectory) -> bytes | None:
    """Return a contradiction in a form that anybody can check; None where it is none."""
    if one.signed is None:
        return None
    asked = one.asked
    claim = TreeClaim(signed.run, asked.row, asked.part, asked.step, one.signed.root)
    found = SignedClaim(claim, bytes.fromhex(one.signed.signature))
    try:
        data = encode_state_equivocation(found, _committed_by(asked, signed, log, run))
        check_state_equivocation(data)
    except RefusedError:
        return None
    return data


def _committed_by(asked: Asked, signed: SignedRun, log: RunLog, run: RunDirectory) -> CommittedBy:
    """Find what commits a tree: in the log, the row of a segment in its step file.

    Raises RefusedError where it is not there.
    """
    genesis = _logged(log, bytes.fromhex(signed.run))
    if asked.step == 0:
        return CommittedBy(genesis)
    row = signed.line.rows[asked.step - 1]
    record = _record(row, log, run)
    said = decode_statement(record.payload)
    if not isinstance(said, Step):
        raise RefusedError("the record of a row is no step", check="equivocation")
    return CommittedBy(genesis, _logged(log, bytes.fromhex(said.attempt)), record)


def _record(row: SignedRow, log: RunLog, run: RunDirectory) -> Envelope:
    if log.index_of(row.record_hash) is not None:
        return _logged(log, row.record_hash)
    path = run.step_file(attempt=row.attempt, rank=0)
    for envelope in step_file.read(path) if path.is_file() else ():
        if envelope.record_hash() == row.record_hash:
            return envelope
    raise RefusedError("the row is not at hand", check="equivocation")


def _logged(log: RunLog, record: bytes) -> Envelope:
    index = log.index_of(record)
    if index is None:
        raise RefusedError(f"the log does not hold record {record.hex()}", check="equivocation")
    return log.entry(index)


def _line(text: str) -> str:
    """Return a line of at most 400 printable ASCII characters."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:400]
