"""What the prover might have left out: the proof against a monitor's status of the log.

Inclusion proofs cannot show absence. A status lists, as of one size of the log, everything about
a contract; what it lists of this run has to be in the proof, above all an audit that refutes it.
Only a proof that is full to its size cap may leave some of it out, and then says so: anybody may
log records about a run, and nobody shall be able to make it unprovable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from attest.check import hold, refuse
from attest.inclusion import ProvenRecords
from attest.keys import Role
from attest.lineage import Lineage
from attest.proof import FULL_PROOF_BYTES, ProofRecord, encode_proof
from attest.signers import check_operator, check_signed
from attest.statements import Audit, Conflict, Intent, KeyEvent, Property, RunEntries, Status
from attest.trust import Policy

__all__ = ["Omissions", "check_omissions"]

# How far, in seconds, a witness's clock may run ahead of the reader's.
CLOCK_DRIFT = 300


@dataclass(frozen=True, slots=True)
class Omissions:
    """Say what is known about records that are not in the proof.

    `unchecked` says in words why omissions are not excluded; it is empty if they are, by a fresh
    status from an operator other than the trainer's, who is `monitor`. `age` is in seconds. `tries`
    is the larger of the numbers of runs and of finals under the contract, 0 without a status.
    `burnt` are intents on the contract that served an earlier final record: their nonces may have
    been known before this one.
    """

    unchecked: str
    monitor: str = ""
    age: int = 0
    runs: int = 0
    finals: int = 0
    burnt: frozenset[int] = frozenset()

    @property
    def tries(self) -> int:
        """Return how many chances at a clean sample the contract's trainers had, visibly."""
        return max(self.runs, self.finals)


def check_omissions(
    proven: ProvenRecords, policy: Policy, lineage: Lineage, *, now: int
) -> Omissions:
    """Check the status, if there is one, and the proof against it; `now` is seconds since 1970.

    Raises:
        RefusedError: (checks `status`, `omissions`, `one final`, `relevance`, or of signatures).
    """
    records = proven.proof.of_kind(Status)
    hold(len(records) <= 1, "relevance", f"the proof holds {len(records)} status records")
    if not records:
        hold(proven.status_head is None, "relevance", "a status checkpoint without a status")
        return Omissions("no status by a monitor")
    record = records[0]
    status = cast(Status, record.statement)
    entry = policy.find(record.signer, Role.MONITOR)
    if entry is None or not entry.covers(record.index):
        return Omissions("the status is by no monitor of the policy")
    check_signed(record, {entry.keyid: entry.public})
    check_operator(record, status.monitor, entry)
    _check_place(proven, record, lineage, policy)
    missing = _check_listed(proven, status, lineage)
    time = _time(proven, record, lineage)
    unchecked = _doubt(time, now, policy) or _left_out(missing)
    if entry.operator == lineage.trainer:
        unchecked = f"the only status is by {entry.operator}, the trainer's own operator"
    return Omissions(
        unchecked=unchecked,
        monitor=entry.operator,
        age=max(0, now - time) if time is not None else 0,
        runs=len(status.runs),
        finals=sum(len(run.finals) for run in status.runs),
        burnt=_burnt(status, lineage),
    )


def _check_place(
    proven: ProvenRecords, record: ProofRecord, lineage: Lineage, policy: Policy
) -> None:
    """Check that the status is of this contract and log, and saw all the proof's records."""
    status = cast(Status, record.statement)
    seen = status.log
    hold(status.contract == lineage.contract_id, "status", "the status is of another contract")
    hold(seen.origin == policy.log.origin, "status", f"the status is of log {seen.origin}")
    root = proven.fold.prefixes.get(seen.size)
    if root is None:
        refuse("status", f"the proof does not show the log's root at the status's size {seen.size}")
    hold(root.hex() == seen.root, "status", "the monitor saw another log than this one")
    if proven.status_head is not None:
        at = proven.status_head.checkpoint
        same = (at.size, at.root.hex()) == (seen.size, seen.root)
        hold(same, "status", "the status checkpoint is not the log that the status saw")
    for other in proven.proof.records:
        covered = other.index < seen.size or other is record
        hold(covered, "status", f"{other.where} was logged after the status, at size {seen.size}")


def _check_listed(proven: ProvenRecords, status: Status, lineage: Lineage) -> list[int]:
    """Check that what the status lists of the run is in the proof, and the reverse.

    Returns the indices that a full proof leaves out; whose they are, nothing here shows.
    """
    own = next((run for run in status.runs if run.run == lineage.run), None)
    if own is None:
        refuse("status", "the status does not list the run")
    final = lineage.final_record.index
    hold(own.genesis == lineage.genesis.index, "status", "the status has another genesis index")
    hold(own.finals == (final,), "one final", f"the status lists final records {own.finals}")
    _check_attempts(own, lineage)
    proof = proven.proof
    intents = {"run": set[int](), "contract": set[int]()}
    for record in proof.of_kind(Intent):
        if record.index < final:
            intents[cast(Intent, record.statement).about].add(record.index)
    # An intent logged after the final record announces nothing of this run; anybody can log one.
    early = {i for i in own.intents if i < final}
    shared = {i for i in status.contract_intents if i < final}
    lists: tuple[tuple[str, Iterable[int], set[int]], ...] = (
        (Intent.KIND, early, intents["run"]),
        (f"{Intent.KIND} on the contract", shared, intents["contract"]),
        *(
            (kind.KIND, listed, {record.index for record in proof.of_kind(kind)})
            for kind, listed in (
                (Audit, own.audits),
                (Property, own.properties),
                (Conflict, own.conflicts),
                (KeyEvent, status.key_events),
            )
        ),
    )
    missing = sorted(index for _, listed, present in lists for index in set(listed) - present)
    full = bool(missing) and len(encode_proof(proof)) >= FULL_PROOF_BYTES
    for what, listed, present in lists:
        _compare(what, set(listed) & present if full else listed, present)
    return missing


def _left_out(missing: list[int]) -> str:
    if not missing:
        return ""
    records = "a record" if len(missing) == 1 else f"{len(missing):,} records"
    return (
        f"the proof is full and leaves out {records} that the status lists, the first at index "
        f"{missing[0]}"
    )


def _check_attempts(own: RunEntries, lineage: Lineage) -> None:
    if lineage.attempts:
        _compare("attempt", own.attempts, {record.index for record in lineage.attempts})
        return
    count = lineage.final.attempts
    hold(
        len(own.attempts) == count,
        "omissions",
        f"the status lists {len(own.attempts)} attempts, the final record counts {count}",
    )


def _compare(what: str, listed: Iterable[int], present: set[int]) -> None:
    missing = min(set(listed) - present, default=None)
    hold(missing is None, "omissions", f"the proof leaves out the {what} at index {missing}")
    unlisted = min(present - set(listed), default=None)
    hold(unlisted is None, "status", f"the status does not list the {what} at index {unlisted}")


def _time(proven: ProvenRecords, record: ProofRecord, lineage: Lineage) -> int | None:
    """Return the witness time as of which the status is complete; None if nothing shows it."""
    if proven.status_head is not None:
        return proven.status_head.time(other_than=lineage.trainer)
    # Nothing but the status itself was logged after what it saw.
    seen = cast(Status, record.statement).log.size
    if record.index == seen == proven.head.checkpoint.size - 1:
        return proven.head.time(other_than=lineage.trainer)
    return None


def _doubt(time: int | None, now: int, policy: Policy) -> str:
    if time is None:
        return "no witness says when the status was complete"
    if time > now + CLOCK_DRIFT:
        return "the witness time lies ahead of this machine's clock"
    if now - time > policy.max_status_age:
        return f"the status is {now - time} s old, the policy takes {policy.max_status_age} s"
    return ""


def _burnt(status: Status, lineage: Lineage) -> frozenset[int]:
    own = lineage.final_record.index
    others = [i for run in status.runs if run.run != lineage.run for i in run.finals if i < own]
    last = max(others, default=-1)
    # Some final record lies between the intent and ours: its auditor may have revealed the nonce.
    return frozenset(i for i in status.contract_intents if i < last)
