"""An intent is answered by the audit it announced, and by no other receipt."""

from types import ModuleType
from typing import Any

import pytest

from attest.level import Level
from attest.statements import Counts, Worst

WITHIN = Worst(*["0x1.0000000000000p-2"] * 6)
BOUNDED: dict[str, Any] = {
    "method": "bounded",
    "worst": WITHIN,
    "environment": {"class.backend": "cpu"},
}


def test_announced_audit_without_a_receipt_is_a_failed_audit(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_status()
    verdict = story.verify()
    assert verdict.level is Level.WITNESSED
    assert "globex announced an audit and gave no receipt" in verdict.doubts
    # Whom the policy does not name cannot spoil it.
    assert story.verify(policy=tale.policy(without=("globex",))).level is Level.SAMPLED


@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        ({}, True),
        ({"sources": ("acme", "globex")}, True),
        (BOUNDED, True),
        ({"sources": ()}, False),
        ({"sources": ("acme",)}, False),
        ({"sources": (), "sample": "chosen", "steps": 9, "counts": Counts(9, 0, 0, 0)}, False),
    ],
)
def test_only_the_announced_audit_answers_an_intent(
    tale: ModuleType, answer: dict[str, Any], answers: bool
) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_audit("globex", **answer)
    story.tell_status()
    verdict = story.verify()
    assert verdict.level is (Level.SAMPLED if answers else Level.WITNESSED)
    assert ("globex announced an audit and gave no receipt" in verdict.doubts) is not answers


def test_audit_drawn_by_the_listed_sources_answers_for_who_is_no_source(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_audit("globex", sources=("acme",))
    story.tell_status()
    assert story.verify(policy=tale.policy(sources=(tale.key("acme").keyid,))).level is (
        Level.SAMPLED
    )
