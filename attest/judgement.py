"""From checked records to a verdict: which level, and whether it is what the policy requires."""

from dataclasses import dataclass

from attest.inclusion import ProvenRecords
from attest.level import Level
from attest.lineage import Lineage
from attest.omissions import Omissions
from attest.properties import Properties, PropertyReading
from attest.receipts import AuditReading, Receipts
from attest.sample import miss_probability, single_escape
from attest.signers import Uncounted
from attest.statements import Audit
from attest.tolerances import backends, why_not_counted
from attest.trust import KeyEntry, Policy, PropertyDemand
from attest.verdict import AuditLine, Coverage, Verdict

__all__ = ["Findings", "judge"]

# Two, so that one auditor's error or lie is not enough.
REPRODUCERS = 2
# So many records that do not count are named; of more, only their number is said.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold what the checks of one proof found; `history` and `artifact` are in words."""

    proven: ProvenRecords
    lineage: Lineage
    receipts: Receipts
    properties: Properties
    omissions: Omissions
    uncounted: tuple[Uncounted, ...]
    history: str
    artifact: str
    key_events: int  # by owners whom the policy names, obeyed


def judge(found: Findings, policy: Policy) -> Verdict:
    """Weigh what was found under a policy."""
    lineage, head = found.lineage, found.proven.head
    audits = sorted(found.receipts.audits, key=lambda r: r.record.index)
    lines = tuple(_line(reading, found, policy) for reading in audits)
    counting = [line for line in lines if not line.shortfall]
    reproducers = _reproducers(found, policy)
    level = _level(found, policy, counting, reproducers)
    auditors = {
        Level.SAMPLED: {line.operator for line in counting},
        Level.REPRODUCED: reproducers,
    }
    demand = policy.require
    unmet = [] if level >= demand.level else [f"the level is {level.text}"]
    readings = {reading.name: reading for reading in found.properties.readings}
    unmet += [f for d in demand.properties if (f := _unmet(d, readings.get(d.name), found))]
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
        coverage=_coverage(found, policy, lines, level),
        properties=found.properties.readings,
        artifact=found.artifact,
        checked=_checked(found),
        doubts=_doubts(found, policy),
        required=", ".join([demand.level.text, *(d.name for d in demand.properties)]),
        unmet=tuple(unmet),
    )


def _level(
    found: Findings, policy: Policy, counting: list[AuditLine], reproducers: set[str]
) -> Level:
    witnesses = found.proven.head.witnesses(other_than=found.lineage.trainer)
    if policy.quorum_gap(witnesses):
        return Level.LOGGED
    # What the prover leaves out could be the audit that refutes the run.
    if found.omissions.unchecked or _unanswered(found, policy):
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
        walk=audit.walk,
        drift=audit.drift,
        shortfall=_shortfall(reading, found, policy),
    )


def _shortfall(reading: AuditReading, found: Findings, policy: Policy) -> str:
    """Say why an audit does not make a run sampled; "" if it does."""
    audit, own = reading.audit, _own(found, policy)
    # An auditor chosen by the trainer, or a sample that the trainer could foresee.
    if reading.entry.operator == found.lineage.trainer or audit.sample == "self":
        return "self-sampled"
    if reading.entry.operator in own:
        return "its auditor is the contract's author, who may be the trainer"
    if audit.sample == "chosen":
        return "steps were chosen"
    if loose := _loose(audit, found, policy):
        return loose
    if not reading.sampled:
        return "its sources are not those of the policy"
    if reading.source_operators <= own:
        return "self-sampled"
    if any(intent.index in found.omissions.burnt for intent in reading.intents):
        return "its nonce served an earlier final record"
    if not _complete(audit):
        return "init, export and line did not all pass"
    # An optimizer that mixes elements leaves nothing that a walk could be seen in.
    elementwise = found.lineage.contract.optimizer.kind == "elementwise"
    if audit.method == "bounded" and elementwise and audit.walk != "pass":
        return "the walk test did not pass"
    # Whoever withholds chooses which: the sample is no sample any more.
    if audit.counts.withheld:
        return "steps were withheld"
    if count := audit.counts.unattestable:
        return f"{_steps(count)} could not be judged: the trainer's class decided which"
    least = min(policy.numerics.min_k, found.lineage.contract.steps)
    return f"fewer than {least:,} sampled steps passed" if reading.passed < least else ""


def _loose(audit: Audit, found: Findings, policy: Policy) -> str:
    """Say why a contract's tolerances let a bounded audit accept anything; "" if they do not."""
    if audit.method == "exact":
        return ""
    told = found.lineage
    pairs = backends(audit, [r.statement for r in (told.genesis, *told.attempts)])
    return why_not_counted(told.contract.numerics, policy.numerics, pairs)


def _own(found: Findings, policy: Policy) -> frozenset[str]:
    """Return the operators who are, or may be, the trainer.

    Who the trainer is, is his own word unless the policy names run keys or the run; the contract's
    author, whom every policy names, might then train under another name.
    """
    lineage = found.lineage
    if lineage.trainer_named or lineage.run in policy.runs:
        return frozenset({lineage.trainer})
    return frozenset({lineage.trainer, lineage.author})


def _reproducers(found: Findings, policy: Policy) -> set[str]:
    """Return the foreign operators who computed every step again, bit for bit."""
    lineage = found.lineage
    return {
        reading.entry.operator
        for reading in found.receipts.audits
        if reading.entry.operator not in _own(found, policy)
        and reading.audit.method == "exact"
        and reading.audit.counts.pass_ == lineage.contract.steps
        and not reading.audit.counts.unattestable
        and not reading.audit.counts.withheld
        and _complete(reading.audit)
    }


def _complete(audit: Audit) -> bool:
    return (audit.init, audit.export, audit.line) == ("pass", "pass", "pass")


def _unanswered(found: Findings, policy: Policy) -> list[str]:
    """List foreign auditors who announced an audit of this run and did not give that one.

    Of one key's intents only the first can draw a sample: a receipt for it answers them all.
    """
    first: dict[str, str] = {}
    for reading in found.receipts.intents:
        first.setdefault(reading.record.signer, reading.record.hash)
    answered = {
        reading.entry.keyid
        for reading in found.receipts.audits
        if _answers(reading, first.get(reading.entry.keyid), found, policy)
    }
    return sorted(
        {
            reading.entry.operator
            for reading in found.receipts.intents
            if isinstance(reading.entry, KeyEntry)
            and reading.entry.operator != found.lineage.trainer
            and reading.entry.keyid not in answered
            and reading.record.index not in found.omissions.burnt
        }
    )


def _answers(reading: AuditReading, intent: str | None, found: Findings, policy: Policy) -> bool:
    """Say whether an audit is the one that its key's intent announced: no chosen steps, no guess.

    Where the policy lists the sources, the audit that they draw is.
    """
    audit = reading.audit
    if audit.sample == "chosen" or _loose(audit, found, policy):
        return False
    drawn = bool(policy.sources) and reading.sampled
    return drawn or any(source.intent == intent for source in audit.sources)


def _coverage(
    found: Findings, policy: Policy, lines: tuple[AuditLine, ...], level: Level
) -> Coverage:
    """Take the best sample that counts; below `sampled` no step counts as checked."""
    steps = found.lineage.contract.steps
    if level < Level.SAMPLED:
        passed, lost = 0, max((line.unattestable + line.withheld for line in lines), default=0)
    else:
        passed = max((line.passed for line in lines if not line.shortfall), default=0)
        passed, lost = (steps if level is Level.REPRODUCED else passed), 0
    fraction = policy.numerics.bad_fraction
    tries = found.omissions.tries
    return Coverage(
        steps=steps,
        passed=passed,
        bad_fraction=fraction,
        tries=tries,
        miss=min(1.0, miss_probability(steps, fraction, passed) * max(1, tries)),
        escape=single_escape(steps, passed),
        lost=lost,
    )


def _unmet(demand: PropertyDemand, reading: PropertyReading | None, found: Findings) -> str:
    if reading is None:
        return f"the contract has no property {demand.name}"
    if reading.state not in ("asserted", "validated"):
        return f"property {demand.name} is {reading.state}"
    if len(reading.validators) < demand.operators:
        return f"property {demand.name} is met for {len(reading.validators)} foreign operators"
    # What the prover leaves out could be the record by which it is not met.
    if found.omissions.unchecked:
        return f"property {demand.name} may be denied by a record left out: omissions not checked"
    return ""


def _checked(found: Findings) -> tuple[str, ...]:
    omissions = found.omissions
    words = [] if found.history else ["history: the checkpoint extends the one remembered"]
    if not omissions.unchecked:
        words.append(f"omissions: by a status of {omissions.monitor}, {omissions.age:,} s old")
    words += ["keys: events by their owners are obeyed"] if found.key_events else []
    return tuple(words)


def _doubts(found: Findings, policy: Policy) -> tuple[str, ...]:
    omissions = found.omissions
    doubts = [f"omissions not checked: {omissions.unchecked}"] if omissions.unchecked else []
    doubts += [f"history not checked: {found.history}"] if found.history else []
    if not found.lineage.trainer_named:
        doubts.append(
            "the trainer's operator is the trainer's own word: the policy names no run key"
        )
    doubts += [
        f"{operator} announced an audit and gave no receipt"
        for operator in _unanswered(found, policy)
    ]
    return (*doubts, *_uncounted(found))


def _uncounted(found: Findings) -> list[str]:
    unnamed = [each.record.where for each in found.uncounted if not each.why]
    doubts = [f"not counted: {e.record.where} {e.why}" for e in found.uncounted if e.why]
    if unnamed:
        records = f"{len(unnamed):,} record{'' if len(unnamed) == 1 else 's'}"
        more = ", ..." if len(unnamed) > _NAMED else ""
        names = ", ".join(unnamed[:_NAMED])
        doubts.append(f"not counted: {records} by keys not of the policy: {names}{more}")
    return doubts


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"
