"""One record with its path in a cosigned checkpoint: taken from a run proof, checked by a policy.

What a `.tlog-proof` can show is little: that these bytes are an entry of the log, and who signed
them. What the record says about a run is judged by the run's proof alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attest.canonical import JSON
from attest.check import hold, refuse
from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import FormatError, RefusedError
from attest.head import Head, check_quorum, open_head
from attest.inclusion import check_inclusion
from attest.keys import Role, keyid
from attest.level import Level
from attest.memory import Memory
from attest.merkle import inclusion_ranges
from attest.multiproof import fold
from attest.note import KeyName, Note
from attest.proof import ProofRecord, RunProof
from attest.run_of import run_of
from attest.signers import check_signed, covering_key
from attest.statements import Attempt, Genesis, Segment, Step
from attest.tlog_proof import TlogProof
from attest.trust import Policy

__all__ = ["RecordVerdict", "record_proof", "verify_record"]

# Who signs what, of the records that one named key signs.
_ROLES = {
    "contract": (Role.AUTHOR,),
    "genesis": (Role.RUN,),
    "attempt": (Role.RUN,),
    "final": (Role.RUN,),
    "intent": (Role.AUDITOR,),
    "nonce": (Role.AUDITOR,),
    "audit": (Role.AUDITOR,),
    "property": (Role.AUDITOR,),
    "status": (Role.MONITOR,),
    "conflict": (Role.REPORTER, Role.MONITOR),
}


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    """Hold what was found about one record: where it lies, and who vouches for it.

    `signed` says in words whose keys signed; `history` what was not checked of the log's past, ""
    if all was; `unmet` what the policy asks for that one record cannot show, "" if nothing.
    """

    record: ProofRecord
    head: Head
    signed: str
    history: str
    unmet: str

    @property
    def exit_code(self) -> int:
        """Return 0 where one record is all that the policy asks for, else 1."""
        return 1 if self.unmet else 0

    def to_json(self) -> dict[str, JSON]:
        """Return the verdict as `--json` prints it."""
        return {
            "kind": self.record.statement.KIND,
            "record": self.record.hash,
            "index": self.record.index,
            "origin": self.head.checkpoint.origin,
            "logSize": self.head.checkpoint.size,
            "cosigners": tuple(sorted(self.head.times)),
            "signedBy": self.signed,
            "historyNotChecked": self.history,
            "unmet": self.unmet,
            "exitCode": self.exit_code,
        }

    def lines(self) -> list[str]:
        """Say it, the most important first."""
        head, record = self.head.checkpoint, self.record
        place = f"is entry {record.index:,} of {head.size:,} in log {head.origin}"
        lines = [f"{record.statement.KIND} {record.hash[:16]} {place}", f"signed by {self.signed}"]
        lines += [f"cosigned by {', '.join(sorted(self.head.times))}"]
        lines += [f"history not checked: {self.history}"] if self.history else []
        lines += ["what the record says was not checked: that is for the run's proof"]
        return [*lines, self.unmet] if self.unmet else lines


def record_proof(proof: RunProof, record: ProofRecord) -> TlogProof:
    """Take one record of a run proof, with its path and the proof's checkpoint.

    Raises:
        FormatError, RefusedError: if the proof's nodes do not fit its records.
    """
    note = proof.checkpoint
    size = Checkpoint.from_text(Note.from_bytes(note).text).size
    folded = fold(size, {r.index: r.leaf for r in proof.records}, proof.sizes, proof.nodes)
    leaf = record.envelope.to_bytes()
    one = TlogProof(record.index, folded.path(record.index, size), note, leaf)
    one.verify(leaf)
    return one


def verify_record(
    data: bytes,
    policy: Policy,
    *,
    run: RunProof | None = None,
    history: Memory | None = None,
) -> RecordVerdict:
    """Check a `.tlog-proof` that holds its record, under a policy.

    Signature lines by keys that the policy does not name are passed over, as the format has it.

    Args:
        data: the file's bytes.
        policy: whom the reader trusts.
        run: the proof of the record's run, verified under the same policy: it vouches for the run
            key and the workers' keys.
        history: remembers the newest checkpoint per log.

    Raises:
        FormatError: if the bytes are no such file, or hold no record of ours.
        RefusedError: naming the check that failed.
        EquivocationError: if the log contradicts the remembered checkpoint.
    """
    one = TlogProof.from_bytes(data)
    if one.extra is None:
        raise FormatError(
            "tlog proof: holds no record (no extra line); 'anh export FILE --to tlog-proof' writes "
            "one that does",
            code="tlog proof",
        )
    record = ProofRecord.read(one.index, Envelope.from_bytes(one.extra))
    named = {KeyName.of(policy.log.key), *(KeyName.of(w.key) for w in policy.witnesses)}
    head = open_head(Note.from_bytes(one.note).signed_only(named).to_bytes(), policy)
    if history is not None:
        history.check_head(head, policy.log.key)
    check_quorum(head, policy)
    proven = check_inclusion(_as_proof(one, record, head), head, None)
    doubt = "no memory of the log was given"
    if history is not None:
        doubt = history.check_history(proven, policy.log.key)
    return RecordVerdict(record, head, _signed(record, policy, run), doubt, _unmet(policy))


def _as_proof(one: TlogProof, record: ProofRecord, head: Head) -> RunProof:
    """Spell the path as a proof of one record: the same hashes, from left to right."""
    size = head.checkpoint.size
    hold(one.index < size, "inclusion", f"index {one.index} is outside a log of {size}")
    ranges = inclusion_ranges(one.index, size)
    hold(len(ranges) == len(one.path), "inclusion", f"the path has not {len(ranges)} hashes")
    pairs = sorted(zip(ranges, one.path, strict=True), key=lambda pair: pair[0].start)
    return RunProof(head.note, None, (record,), (), tuple(node for _, node in pairs))


def _signed(record: ProofRecord, policy: Policy, run: RunProof | None) -> str:
    """Check who signed, and say whose key it was."""
    said = run_of(record.envelope)
    if policy.runs and said is not None:
        hold(said in policy.runs, "accepted", f"run {said} is none that the policy accepts")
    if isinstance(record.statement, Step | Segment):
        check_signed(record, _worker_keys(record, said, run))
        return f"the workers of an attempt of run {str(said)[:16]}"
    roles = _ROLES.get(record.statement.KIND)
    if roles is None:
        refuse("relevance", f"no policy says who may sign a record of kind {record.statement.KIND}")
    if roles == (Role.RUN,) and not policy.of_role(Role.RUN):
        check_signed(record, _run_key(record, said, run))
        return f"the key of run {str(said)[:16]}, whose holder the policy does not name"
    held = [role for role in roles if policy.find(record.signer, role)] or [roles[0]]
    entry = covering_key(policy, record, record.signer, held[0])
    check_signed(record, {entry.keyid: entry.public})
    return f"{entry.operator} ({held[0].value} key {entry.keyid[:16]})"


def _run_key(record: ProofRecord, said: str | None, run: RunProof | None) -> Mapping[str, bytes]:
    # A genesis carries the key it is signed with: that is what makes it the run's name.
    sources = [record] if run is None else [record, *run.of_kind(Genesis)]
    for source in sources:
        if isinstance(source.statement, Genesis) and source.hash == said:
            public = bytes.fromhex(source.statement.run_key)
            return {keyid(public): public}
    raise RefusedError(
        f"envelope signatures: {record.where} is signed by a run key that the policy does not name:"
        " add --proof D/run.proof, or name the key",
        check="envelope signatures",
    )


def _worker_keys(
    record: ProofRecord, said: str | None, run: RunProof | None
) -> Mapping[str, bytes]:
    statement = record.statement
    attempts = () if run is None else run.of_kind(Attempt)
    for attempt in attempts:
        found = attempt.statement
        if attempt.hash == getattr(statement, "attempt", None) and isinstance(found, Attempt):
            hold(found.run == said, "attempts", f"{record.where} and its attempt are of two runs")
            publics = [bytes.fromhex(text) for text in found.worker_keys]
            # A segment is signed by its attempt's first worker alone, a step by all.
            chosen = publics[:1] if isinstance(statement, Segment) else publics
            return {keyid(public): public for public in chosen}
    raise RefusedError(
        f"envelope signatures: {record.where} is signed by workers, whose keys its attempt names: "
        "add --proof D/run.proof, where that attempt is in it",
        check="envelope signatures",
    )


def _unmet(policy: Policy) -> str:
    if policy.require.level is Level.LOGGED and not policy.require.properties:
        return ""
    names = [policy.require.level.text, *(demand.name for demand in policy.require.properties)]
    return f"the policy asks for {', '.join(names)}, which only a run proof can show"
