"""The contract's properties of the final state: integer counts, and a verdict with a margin."""

from collections.abc import Iterator

from anh_jax.audit.transcript import Transcript
from anh_jax.workbench import Counts
from attest.contract import Contract, PropertyRule
from attest.statements import Property, Threshold


def property_statements(
    contract: Contract, transcript: Transcript, counts: Counts, *, auditor: str
) -> Iterator[Property]:
    """Yield a statement for each property that the contract's evaluation decides.

    `counts` are those of the verified final state over the hold-out set; `auditor` is an operator.
    """
    holdout = contract.data.holdout
    for rule in contract.properties:
        if holdout is None or rule.data_root != holdout.root:
            continue
        if rule.program != contract.programs.evaluate or not counts.total:
            continue
        yield Property(
            state_root=transcript.final.state_root,
            run=transcript.run,
            final=transcript.final_record,
            auditor=auditor,
            name=rule.name,
            program=rule.program,
            data_root=rule.data_root,
            correct=counts.correct,
            total=counts.total,
            threshold=Threshold(rule.numerator, rule.denominator),
            margin=rule.margin,
            verdict=decide(rule, counts),
        )


def decide(rule: PropertyRule, counts: Counts) -> str:
    """Compare correct / total with the threshold, in integers.

    `met` from `margin` right answers above it on, `not met` from more than `margin` below it;
    between them another backend's rounding might decide, so it is `undecided`.
    """
    excess = counts.correct * rule.denominator - counts.total * rule.numerator
    margin = rule.margin * rule.denominator
    if excess >= margin:
        return "met"
    return "not met" if excess < -margin else "undecided"
