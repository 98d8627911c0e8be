"""Auditors count by operator: who signs with two keys has still said one thing."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.level import Level
from attest.statements import Counts, Worst
from attest.trust import Policy, PropertyDemand, Requirement

BOUNDED = {
    "method": "bounded",
    "worst": Worst(*["0x1.0000000000000p-2"] * 6),
    "environment": {"class.backend": "cpu"},
}


def policy(tale: ModuleType, operator: str) -> Policy:
    """Return the policy under which globex's key belongs to an operator."""
    base = tale.policy()
    keys = tuple(
        replace(entry, operator=operator) if entry.public == tale.key("globex").public else entry
        for entry in base.keys
    )
    return replace(base, keys=keys)


def twice(tale: ModuleType, operator: str, **changes: Any) -> Any:
    """Tell a run whose 30 steps two keys audit and whose property both evaluate."""
    every = {"k": 30, "steps": 30, "counts": Counts(30, 0, 0, 0), **changes}
    story = tale.Story(steps=30, k=30)
    story.open()
    story.tell_intent("acme")
    story.tell_intent("globex", auditor=operator)
    story.tell_final()
    story.tell_audit("acme", **every)
    story.tell_audit("globex", **every, auditor=operator)
    story.tell_property("acme")
    story.tell_property("globex", auditor=operator, correct=281)
    story.tell_status()
    return story.verify(policy=policy(tale, operator))


def test_two_operators_reproduce_and_validate_as_two(tale: ModuleType) -> None:
    verdict = twice(tale, "globex")
    assert (verdict.level, verdict.auditors) == (Level.REPRODUCED, ("acme", "globex"))
    (reading,) = verdict.properties
    assert (reading.validators, reading.auditors) == (("acme", "globex"), 2)


def test_two_keys_of_one_operator_are_one_auditor(tale: ModuleType) -> None:
    verdict = twice(tale, "acme")
    assert (verdict.level, verdict.auditors) == (Level.SAMPLED, ("acme",))
    assert verdict.headline().startswith("sampled by acme: ")
    (reading,) = verdict.properties
    assert (reading.validators, reading.auditors) == (("acme",), 1)


def test_key_of_the_trainers_operator_adds_no_auditor(tale: ModuleType) -> None:
    verdict = twice(tale, "lab")
    assert (verdict.level, verdict.auditors) == (Level.SAMPLED, ("acme",))
    (reading,) = verdict.properties
    assert reading.validators == ("acme",)


def test_audit_that_withheld_a_step_reproduces_nothing(tale: ModuleType) -> None:
    """With a second attempt a receipt may count one step more than the run has."""
    told: dict[str, Any] = {"k": 30, "steps": 30, "counts": Counts(30, 0, 0, 1)}
    for changes, level in (({}, Level.REPRODUCED), (told, Level.SAMPLED)):
        story = tale.Story(steps=30, k=30)
        story.open()
        story.tell_attempt(number=2)
        story.tell_intent("acme")
        story.tell_intent("globex")
        story.tell_final()
        story.tell_audit("acme", k=30, steps=30, counts=Counts(30, 0, 0, 0))
        story.tell_audit(
            "globex", **{"k": 30, "steps": 30, "counts": Counts(30, 0, 0, 0), **changes}
        )
        story.tell_status()
        assert story.verify().level is level


def test_bounded_audits_of_two_operators_are_sampled_by_both(tale: ModuleType) -> None:
    verdict = twice(tale, "globex", **BOUNDED)
    assert (verdict.level, verdict.auditors) == (Level.SAMPLED, ("acme", "globex"))


@pytest.mark.parametrize(("operator", "met"), [("globex", True), ("acme", False)])
def test_property_is_demanded_of_so_many_operators(
    tale: ModuleType, operator: str, met: bool
) -> None:
    """The trainer's own auditor key makes two auditor operators, of which one is foreign."""
    story = tale.Story(steps=30, k=30)
    story.open()
    story.tell_final()
    for who in ("acme", "globex"):
        named = operator if who == "globex" else who
        story.tell_property(who, auditor=named, correct=281 if who == "globex" else 280)
    story.tell_status()
    demand = Requirement(Level.WITNESSED, (PropertyDemand("accuracy", 2),))
    verdict = story.verify(policy=replace(policy(tale, operator), require=demand))
    assert (verdict.exit_code == 0) is met
