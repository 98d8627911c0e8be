"""From checked records to a verdict: which level, and whether it is what the policy requires."""

from dataclasses import dataclass

from attest.canonical import parse_hex_float
from attest.inclusion import ProvenRecords
from attest.level import Level
from attest.lineage import Lineage
from attest.omissions import Omissions
from attest.proof import ProofRecord
from attest.properties import Properties, PropertyReading
from attest.receipts import AuditReading, Receipts
from attest.sample import miss_probability, single_escape
from attest.statements import Audit
from attest.trust import Policy, PropertyDemand
from attest.verdict import AuditLine, Coverage, Verdict

__all__ = ["Findings", "judge"]

# Two, so that one auditor's error or lie is not enough.
REPRODUCERS = 2


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold what the checks of one proof found; `history` and `artifact` are in words."""

    proven: ProvenRecords
    lineage: Lineage
    receipts: Receipts
    properties: Properties
    omissions: Omissions
    uncounted: tuple[ProofRecord, ...]
    history: str
    artifact: str


def judge(found: Findings, policy: Policy) -> Verdict:
    """Weigh what was found under a policy."""
    lineage, head = found.lineage, found.proven.head
    lines = tuple(
        _line(reading, found, policy)
        for reading in sorted(found.receipts.audits, key=lambda r: r.record.index)
    )
    counting = [line for line in lines if not line.shortfall]
    reproducers = _reproducers(found)
    level = _level(found, policy, counting, reproducers)
    auditors = {
        Level.SAMPLED: {line.operator for line in counting},
        Level.REPRODUCED: reproducers,
    }
    demand = policy.require
    unmet = [] if level >= demand.level else [f"the level is {level.text}"]
    readings = {reading.name: reading for reading in found.properties.readings}
    unmet += [f for d in demand.properties if (f := _unmet(d, readings.get(d.name)))]
    return Verdict(
        level=level,
        own=policy.operators() <= {lineage.trainer},
        run=lineage.run,
        contract=lineage.contract_id,
        trainer=lineage.trainer,
        trainer_named=lineage.trainer_named,
        steps=lineage.contract.steps,
        attempts=lineage.final.attempts,
        runs=found.omissions.runs,
        finals=found.omissions.finals,
        origin=head.checkpoint.origin,
        log_size=head.checkpoint.size,
        witnesses=head.witnesses(other_than=lineage.trainer),
        witness_time=head.time(other_than=lineage.trainer),
        auditors=tuple(sorted(auditors.get(level, set()))),
        audits=lines,
        coverage=_coverage(found, policy, counting, level),
        properties=found.properties.readings,
        artifact=found.artifact,
        checked=_checked(found),
        doubts=_doubts(found),
        required=", ".join([demand.level.text, *(d.name for d in demand.properties)]),
        unmet=tuple(unmet),
    )


def _level(
    found: Findings, policy: Policy, counting: list[AuditLine], reproducers: set[str]
) -> Level:
    witnesses = found.proven.head.witnesses(other_than=found.lineage.trainer)
    if len(witnesses) < policy.quorum:
        return Level.LOGGED
    # What the prover leaves out could be the audit that refutes the run.
    if found.omissions.unchecked or _unanswered(found):
        return Level.WITNESSED
    if len(reproducers) >= REPRODUCERS:
        return Level.REPRODUCED
    return Level.SAMPLED if counting else Level.WITNESSED


def _line(reading: AuditReading, found: Findings, policy: Policy) -> AuditLine:
    audit = reading.audit
    drawn = audit.k if audit.sample != "chosen" else audit.steps + audit.counts.withheld
    return AuditLine(
        operator=reading.entry.operator,
        index=reading.record.index,
        passed=reading.passed,
        drawn=drawn,
        unattestable=audit.counts.unattestable,
        withheld=audit.counts.withheld,
        init=audit.init,
        export=audit.export,
        line=audit.line,
        drift=audit.drift,
        shortfall=_shortfall(reading, found, policy),
    )


def _shortfall(reading: AuditReading, found: Findings, policy: Policy) -> str:
    """Say why an audit does not make a run sampled; "" if it does."""
    audit, trainer = reading.audit, found.lineage.trainer
    # An auditor chosen by the trainer, or a sample that the trainer could foresee.
    if reading.entry.operator == trainer or audit.sample == "self":
        return "self-sampled"
    if audit.sample == "chosen":
        return "steps were chosen"
    if audit.method == "preliminary":
        return "preliminary"
    if not reading.sampled:
        return "its sources are not those of the policy"
    if all(operator == trainer for operator in reading.source_operators):
        return "self-sampled"
    if any(intent.index in found.omissions.burnt for intent in reading.intents):
        return "its nonce served an earlier final record"
    if not _complete(audit):
        return "init, export and line did not all pass"
    # Whoever withholds chooses which: the sample is no sample any more.
    if audit.counts.withheld:
        return "steps were withheld"
    least = min(policy.numerics.min_k, found.lineage.contract.steps)
    return f"fewer than {least:,} sampled steps passed" if reading.passed < least else ""


def _reproducers(found: Findings) -> set[str]:
    """Return the foreign operators who computed every step again, bit for bit."""
    lineage = found.lineage
    return {
        reading.entry.operator
        for reading in found.receipts.audits
        if reading.entry.operator != lineage.trainer
        and reading.audit.method == "exact"
        and reading.audit.counts.pass_ == lineage.contract.steps
        and not reading.audit.counts.unattestable
        and not reading.audit.counts.withheld
        and _complete(reading.audit)
        and _bit_equal(reading.audit)
    }


def _complete(audit: Audit) -> bool:
    return (audit.init, audit.export, audit.line) == ("pass", "pass", "pass")


def _bit_equal(audit: Audit) -> bool:
    worst = audit.worst
    return all(
        value is None or parse_hex_float(value) == 0.0
        for value in (worst.a, worst.a_row, worst.a2, worst.b)
    )


def _unanswered(found: Findings) -> list[str]:
    """List foreign auditors who announced an audit of this run and gave no receipt."""
    answered = {reading.entry.keyid for reading in found.receipts.audits}
    return sorted(
        {
            reading.entry.operator
            for reading in found.receipts.intents
            if reading.entry is not None
            and reading.entry.operator != found.lineage.trainer
            and reading.entry.keyid not in answered
            and reading.record.index not in found.omissions.burnt
        }
    )


def _coverage(found: Findings, policy: Policy, counting: list[AuditLine], level: Level) -> Coverage:
    """Take the best sample that counts; below `sampled` no step counts as checked."""
    steps = found.lineage.contract.steps
    passed = max((line.passed for line in counting), default=0) if level >= Level.SAMPLED else 0
    passed = steps if level is Level.REPRODUCED else passed
    fraction = policy.numerics.bad_fraction
    tries = found.omissions.tries
    return Coverage(
        steps=steps,
        passed=passed,
        bad_fraction=fraction,
        tries=tries,
        miss=min(1.0, miss_probability(steps, fraction, passed) * max(1, tries)),
        escape=single_escape(steps, passed),
    )


def _unmet(demand: PropertyDemand, reading: PropertyReading | None) -> str:
    if reading is None:
        return f"the contract has no property {demand.name}"
    if reading.state not in ("asserted", "validated"):
        return f"property {demand.name} is {reading.state}"
    if len(reading.validators) < demand.operators:
        return f"property {demand.name} is met for {len(reading.validators)} foreign operators"
    return ""


def _checked(found: Findings) -> tuple[str, ...]:
    omissions = found.omissions
    words = [] if found.history else ["history: the checkpoint extends the one remembered"]
    if not omissions.unchecked:
        words.append(f"omissions: by a status of {omissions.monitor}, {omissions.age:,} s old")
    return tuple(words)


def _doubts(found: Findings) -> tuple[str, ...]:
    omissions = found.omissions
    doubts = [f"omissions not checked: {omissions.unchecked}"] if omissions.unchecked else []
    doubts += [f"history not checked: {found.history}"] if found.history else []
    if not found.lineage.trainer_named:
        doubts.append(
            "the trainer's operator is the trainer's own word: the policy names no run key"
        )
    doubts += [
        f"{operator} announced an audit and gave no receipt" for operator in _unanswered(found)
    ]
    if omissions.key_events:
        doubts.append(f"{omissions.key_events} key events under the contract were not read")
    doubts += [
        f"not counted: {record.where}, by a key not of the policy" for record in found.uncounted
    ]
    return tuple(doubts)
