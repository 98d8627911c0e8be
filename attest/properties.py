"""What auditors said about the contract's properties: asserted < validated (k of n operators)."""

from dataclasses import dataclass
from typing import cast

from attest.check import hold, refuse
from attest.contract import PropertyRule
from attest.keys import Role
from attest.lineage import Lineage
from attest.proof import ProofRecord, RunProof
from attest.signers import Uncounted, named_auditor, struck_auditor
from attest.statements import Property
from attest.trust import KeyEntry, Policy

__all__ = ["Properties", "PropertyReading", "check_properties"]


@dataclass(frozen=True, slots=True)
class PropertyReading:
    """Sum up what was said about one property of the contract.

    `state` is one of: not evaluated, asserted (only the trainer's operator says met), validated
    (operators other than the trainer's say so), not met, undecided. `validators` are the foreign
    operators for whom it is met, of `auditors` that the policy names. Counts are the least met.
    """

    name: str
    state: str
    validators: tuple[str, ...]
    auditors: int
    correct: int
    total: int
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Properties:
    """Hold one reading for each property of the contract, and the records by other keys."""

    readings: tuple[PropertyReading, ...]
    uncounted: tuple[Uncounted, ...]


def check_properties(proof: RunProof, policy: Policy, lineage: Lineage) -> Properties:
    """Check every property record and sum them up by name.

    Raises:
        RefusedError: naming the check that failed.
    """
    rules = {rule.name: rule for rule in lineage.contract.properties}
    said: dict[str, list[tuple[KeyEntry, Property]]] = {name: [] for name in rules}
    uncounted: list[Uncounted] = []
    for record in proof.of_kind(Property):
        claim = cast(Property, record.statement)
        entry = named_auditor(policy, record, claim.auditor)
        if isinstance(entry, Uncounted):
            uncounted.append(entry)
            struck = struck_auditor(policy, record, claim.auditor)
            if struck is None or claim.verdict == "met":
                continue
            entry = struck
        _check_claim(record, claim, rules.get(claim.name), lineage)
        said[claim.name].append((entry, claim))
    readings = tuple(_sum_up(rules[name], said[name], policy, lineage.trainer) for name in rules)
    return Properties(readings, tuple(uncounted))


def _check_claim(
    record: ProofRecord, claim: Property, rule: PropertyRule | None, lineage: Lineage
) -> None:
    final = lineage.final_record
    hold(claim.run == lineage.run, "property", f"{record.where} is of run {claim.run}")
    hold(claim.final == final.hash, "property", f"{record.where} is of another final record")
    same_state = claim.state_root == lineage.final.state_root
    hold(same_state, "property", f"{record.where} is about another state")
    hold(final.index < record.index, "order", f"{record.where} precedes the final record")
    if rule is None:
        refuse("property", f"{record.where}: the contract has no property {claim.name}")
    promised = (rule.program, rule.data_root, rule.numerator, rule.denominator, rule.margin)
    threshold = claim.threshold
    stated = (claim.program, claim.data_root, threshold.numerator, threshold.denominator)
    hold((*stated, claim.margin) == promised, "property", f"{record.where} changes its rule")
    holdout = lineage.contract.data.holdout
    if holdout is not None and claim.data_root == holdout.root:
        # An example may hold several answers (a text's tokens): as many in each.
        whole = claim.total % holdout.examples == 0
        hold(whole, "property", f"{record.where} counts {claim.total} of {holdout.examples}")
    hold(_fits(claim), "property", f"{record.where}: its counts do not give {claim.verdict!r}")


def _fits(claim: Property) -> bool:
    """Compare verdict and counts: met at the threshold plus `margin` examples or above."""
    denominator = claim.threshold.denominator
    excess = claim.correct * denominator - claim.total * claim.threshold.numerator
    margin = claim.margin * denominator
    if claim.verdict == "met":
        return excess >= margin
    if claim.verdict == "not met":
        return excess < 0
    return abs(excess) <= margin


def _sum_up(
    rule: PropertyRule, said: list[tuple[KeyEntry, Property]], policy: Policy, trainer: str
) -> PropertyReading:
    met = {entry.operator for entry, claim in said if claim.verdict == "met"}
    verdicts = {claim.verdict for _, claim in said}
    # One "not met" by any key of the policy outweighs every "met".
    if not said:
        state = "not evaluated"
    elif "not met" in verdicts or "undecided" in verdicts:
        state = "not met" if "not met" in verdicts else "undecided"
    else:
        state = "asserted" if met <= {trainer} else "validated"
    auditors = {entry.operator for entry in policy.of_role(Role.AUDITOR)} - {trainer}
    worst = min((claim for _, claim in said), key=lambda claim: claim.correct, default=None)
    return PropertyReading(
        name=rule.name,
        state=state,
        validators=tuple(sorted(met - {trainer})) if state == "validated" else (),
        auditors=len(auditors),
        correct=worst.correct if worst else 0,
        total=worst.total if worst else 0,
        numerator=rule.numerator,
        denominator=rule.denominator,
    )
