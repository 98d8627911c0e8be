"""What auditors said about a run: intents, revealed nonces, audits; each checked and read.

A sample is worth something because its nonces were committed before the final record and revealed
after it, by sources that the policy fixed: nobody could choose the steps, or the final record, to
fit. The client draws the sample again; which steps an audit ran is under its `resultsRoot`.
"""

from dataclasses import dataclass
from typing import cast

from attest.check import hold, refuse
from attest.errors import RefusedError
from attest.keys import Role
from attest.lineage import Lineage
from attest.proof import ProofRecord, RunProof
from attest.sample import commitment, sample_steps
from attest.signers import Uncounted, check_signed, named_auditor, struck_auditor
from attest.statements import Audit, Intent, Nonce, Source
from attest.trust import KeyEntry, Policy

__all__ = ["AuditReading", "IntentReading", "Receipts", "check_receipts"]

# Drawing takes about a microsecond a step; more than this is no sample of a client's.
MAX_DRAWN = 1 << 20


@dataclass(frozen=True, slots=True)
class IntentReading:
    """Hold an intent; `entry` says why it does not count, where it does not."""

    record: ProofRecord
    intent: Intent
    entry: KeyEntry | Uncounted


@dataclass(frozen=True, slots=True)
class AuditReading:
    """Hold a checked audit by a key of the policy, and what it covers.

    `passed` counts sampled steps (for a chosen sample: any steps) that surely passed; `sampled`
    says that the sample's sources are those of the policy, run by `source_operators`.
    """

    record: ProofRecord
    audit: Audit
    entry: KeyEntry
    passed: int
    sampled: bool
    intents: tuple[ProofRecord, ...]
    source_operators: frozenset[str]


@dataclass(frozen=True, slots=True)
class Receipts:
    """Hold all intents, the audits by keys of the policy, and the records that do not count."""

    intents: tuple[IntentReading, ...]
    audits: tuple[AuditReading, ...]
    uncounted: tuple[Uncounted, ...]


def check_receipts(proof: RunProof, policy: Policy, lineage: Lineage) -> Receipts:
    """Check intents, nonces and audits.

    Raises:
        RefusedError: naming the check that failed; also for an audit that refutes the run.
    """
    intents = tuple(_intent(r, policy, lineage) for r in proof.of_kind(Intent))
    by_hash = {reading.record.hash: reading for reading in intents}
    readings = [_audit(r, policy, lineage, by_hash) for r in proof.of_kind(Audit)]
    nonces = [_nonce(r, policy, lineage, by_hash) for r in proof.of_kind(Nonce)]
    said = (*(reading.entry for reading in intents), *nonces, *readings)
    return Receipts(
        intents,
        tuple(reading for reading in readings if isinstance(reading, AuditReading)),
        tuple(found for found in said if isinstance(found, Uncounted)),
    )


def _intent(record: ProofRecord, policy: Policy, lineage: Lineage) -> IntentReading:
    intent = cast(Intent, record.statement)
    entry = named_auditor(policy, record, intent.auditor)
    if isinstance(entry, Uncounted):
        return IntentReading(record, intent, entry)
    target = lineage.run if intent.about == "run" else lineage.contract_id
    hold(intent.target == target, "relevance", f"{record.where} is about another {intent.about}")
    # After the final record a nonce can be chosen to fit it.
    hold(record.index < lineage.final_record.index, "order", f"{record.where} lies after the final")
    return IntentReading(record, intent, entry)


def _nonce(
    record: ProofRecord, policy: Policy, lineage: Lineage, intents: dict[str, IntentReading]
) -> Uncounted | None:
    """Check a revealed nonce; a key that the policy does not name may reveal anything."""
    nonce = cast(Nonce, record.statement)
    reading = intents.get(nonce.intent)
    if policy.find(record.signer, Role.AUDITOR) is None:
        return Uncounted(record)
    if reading is None:
        refuse("relevance", f"{record.where} reveals no intent that this proof can use")
    if isinstance(reading.entry, Uncounted):
        return Uncounted(record, f"reveals {reading.record.where}, which does not count")
    check_signed(record, {reading.entry.keyid: reading.entry.public})
    _check_commitment(record, reading, nonce.nonce)
    # Before the final record a known nonce lets the trainer choose a final with a clean sample.
    hold(lineage.final_record.index < record.index, "order", f"{record.where} precedes the final")
    return None


def _audit(
    record: ProofRecord, policy: Policy, lineage: Lineage, intents: dict[str, IntentReading]
) -> AuditReading | Uncounted:
    audit = cast(Audit, record.statement)
    entry = named_auditor(policy, record, audit.auditor)
    if isinstance(entry, Uncounted):
        struck = struck_auditor(policy, record, audit.auditor)
        if struck is not None and audit.final == lineage.final_record.hash:
            _check_outcome(record, audit, struck)
        return entry
    hold(audit.run == lineage.run, "audit", f"{record.where} is of run {audit.run}")
    hold(
        audit.final == lineage.final_record.hash,
        "audit",
        f"{record.where} is of another final record, {audit.final}",
    )
    hold(lineage.final_record.index < record.index, "order", f"{record.where} precedes the final")
    used = tuple(_source(record, source, intents) for source in audit.sources)
    _check_steps(record, audit, lineage)
    _check_outcome(record, audit, entry)
    fixed = frozenset(source.keyid for source in audit.sources) == policy.sample_sources(
        entry.keyid
    )
    counted = audit.k if audit.sample != "chosen" else audit.counts.pass_
    lost = audit.counts.unattestable + audit.counts.withheld
    operators = [i.entry.operator for i in used if isinstance(i.entry, KeyEntry)]
    return AuditReading(
        record=record,
        audit=audit,
        entry=entry,
        # Which steps were lost is not known here: all count against the sample.
        passed=max(0, counted - lost) if audit.sample != "chosen" else counted,
        sampled=audit.sample == "intents" and fixed and len(operators) == len(used),
        intents=tuple(reading.record for reading in used),
        source_operators=frozenset(operators),
    )


def _source(
    record: ProofRecord, source: Source, intents: dict[str, IntentReading]
) -> IntentReading:
    """Check one source of a sample: its intent, in the proof, that key's first, revealed right."""
    reading = intents.get(source.intent)
    if reading is None:
        refuse("sources", f"{record.where} rests on an intent that is not in the proof")
    signer = reading.record.signer
    hold(signer == source.keyid, "sources", f"{record.where} gives an intent to another key")
    first = min(r.record.index for r in intents.values() if r.record.signer == signer)
    # With a choice among several intents an auditor could choose the sample.
    hold(reading.record.index == first, "sources", f"{record.where} skips its key's first intent")
    _check_commitment(record, reading, source.nonce)
    return reading


def _check_commitment(record: ProofRecord, reading: IntentReading, nonce: str) -> None:
    hold(
        commitment(bytes.fromhex(nonce)).hex() == reading.intent.commitment,
        "sources",
        f"{record.where}: the nonce is not the one committed to at index {reading.record.index}",
    )


def _check_steps(record: ProofRecord, audit: Audit, lineage: Lineage) -> None:
    """Check that an audit counts as many steps as the rule selects: re-executed or withheld.

    Always added: the last step, and one overlapped step for each attempt after the first that has
    one, which the client cannot see. Step 0 is not counted: it is the audit's `init`.
    """
    total = lineage.contract.steps
    counted = audit.steps + audit.counts.withheld
    if audit.sample == "chosen":
        hold(counted <= total, "sample", f"{record.where} counts {counted} of {total} steps")
        return
    least = len(_drawn(record, audit, lineage))
    most = least + lineage.final.attempts - 1
    hold(
        least <= counted <= most,
        "sample",
        f"{record.where} counts {counted} steps, its sample of {audit.k} has {least} to {most}",
    )


def _drawn(record: ProofRecord, audit: Audit, lineage: Lineage) -> set[int] | range:
    total = lineage.contract.steps
    if audit.k == total:
        return range(1, total + 1)
    hold(audit.k <= MAX_DRAWN, "sample", f"{record.where} draws more than {MAX_DRAWN} steps")
    nonces = {source.keyid: bytes.fromhex(source.nonce) for source in audit.sources}
    run, final = bytes.fromhex(lineage.run), bytes.fromhex(lineage.final_record.hash)
    try:
        drawn = sample_steps(run, final, nonces, total, audit.k)
    except RefusedError as error:
        refuse("sample", f"{record.where}: {error}")
    return {total, *drawn}


def _check_outcome(record: ProofRecord, audit: Audit, entry: KeyEntry) -> None:
    """Refuse a run that a key of the policy refutes, whoever operates it and however it judged."""
    failed = [n for n in ("init", "export", "line", "walk", "drift") if getattr(audit, n) == "fail"]
    if audit.counts.refuted:
        failed.insert(0, f"{audit.counts.refuted} steps")
    hold(not failed, "audit", f"{entry.operator} refutes {', '.join(failed)} ({record.where})")
