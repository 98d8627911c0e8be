"""Property records: of a promise in the contract, with counts that give their verdict."""

from types import ModuleType
from typing import Any

import pytest

from attest.statements import Threshold

WRONG: dict[str, dict[str, Any]] = {
    "of another run": {"run": "a" * 64},
    "of another final record": {"final": "a" * 64},
    "of another state": {"state_root": "a" * 64},
    "not promised": {"name": "loss"},
    "by another program": {"program": "a" * 64},
    "on other data": {"data_root": "a" * 64},
    "at a lower threshold": {"threshold": Threshold(8, 10)},
    "at the same threshold, written otherwise": {"threshold": Threshold(90, 100)},
    "at a smaller margin": {"margin": 0},
    "on part of the hold-out": {"correct": 95, "total": 100},
    "on a set and a part of it": {"correct": 380, "total": 400},
    "met below its threshold": {"correct": 269},
    "met within the margin": {"correct": 270},
    "not met above its threshold": {"correct": 290, "verdict": "not met"},
    "undecided far above": {"correct": 290, "verdict": "undecided"},
    "undecided far below": {"correct": 200, "verdict": "undecided"},
}


def evaluated(tale: ModuleType, *who: str, **changes: Any) -> Any:
    story = tale.Story()
    story.open()
    story.tell_final()
    for name in who:
        story.tell_property(name, **changes)
    return story


@pytest.mark.parametrize("name", WRONG)
def test_property_told_wrong_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = evaluated(tale, "acme", **WRONG[name])
    refused("property", story, story.proof_and("property acme"))


@pytest.mark.parametrize("name", WRONG)
def test_property_told_wrong_by_a_stranger_is_not_counted(tale: ModuleType, name: str) -> None:
    story = evaluated(tale, "stranger", **WRONG[name])
    story.tell_property("acme")
    verdict = story.verify(story.proof_of(range(6)))
    assert verdict.properties[0].state == "validated"
    assert any("property at index 4" in doubt for doubt in verdict.doubts)


def test_property_logged_before_the_final_is_refused(tale: ModuleType, refused) -> None:
    whole, story = evaluated(tale), tale.Story()
    story.open()
    story.final, story.records["final"] = whole.final, whole.records["final"]
    story.tell_property("acme")
    story.tell_final()
    refused("order", story)


@pytest.mark.parametrize(
    ("correct", "verdict", "state"),
    [
        # 9/10 of 297 and the margin of 3: 270.3 and above is met.
        (297, "met", "validated"),
        (271, "met", "validated"),
        (270, "undecided", "undecided"),
        (265, "undecided", "undecided"),
        (264, "not met", "not met"),
        (0, "not met", "not met"),
    ],
)
def test_verdict_follows_from_the_counts(
    tale: ModuleType, correct: int, verdict: str, state: str
) -> None:
    story = evaluated(tale, "acme", correct=correct, verdict=verdict)
    (reading,) = story.verify().properties
    assert (reading.state, reading.correct, reading.total) == (state, correct, 297)


def test_trainers_own_word_is_asserted_and_no_more(tale: ModuleType) -> None:
    (reading,) = evaluated(tale, "lab-audit").verify().properties
    assert (reading.state, reading.validators) == ("asserted", ())


def test_validators_are_counted_by_foreign_operator(tale: ModuleType) -> None:
    story = evaluated(tale)
    for count, who in enumerate(("acme", "globex", "lab-audit"), start=280):
        story.tell_property(who, correct=count)
    (reading,) = story.verify().properties
    assert (reading.state, reading.validators) == ("validated", ("acme", "globex"))
    assert (reading.auditors, reading.correct) == (2, 280)


def test_validators_who_count_the_same_write_two_records(tale: ModuleType) -> None:
    story = evaluated(tale, "acme", "globex")
    (reading,) = story.verify().properties
    assert (reading.state, reading.validators) == ("validated", ("acme", "globex"))


def test_several_answers_an_example_are_counted_whole(tale: ModuleType) -> None:
    story = evaluated(tale, "acme", correct=2600, total=2 * 5 * 297, verdict="not met")
    (reading,) = story.verify().properties
    assert (reading.state, reading.total) == ("not met", 2970)


@pytest.mark.parametrize("order", [("acme", "globex"), ("globex", "acme")])
def test_one_not_met_outweighs_every_met(tale: ModuleType, order: tuple[str, str]) -> None:
    story = evaluated(tale, order[0])
    story.tell_property(order[1], correct=100, verdict="not met")
    (reading,) = story.verify().properties
    assert (reading.state, reading.validators, reading.correct) == ("not met", (), 100)


def test_property_nobody_evaluated_says_so(tale: ModuleType) -> None:
    (reading,) = evaluated(tale).verify().properties
    assert reading.state == "not evaluated"


def test_keys_not_of_the_policy_validate_nothing(tale: ModuleType) -> None:
    story = evaluated(tale, "acme")
    story.tell_status()
    verdict = story.verify(policy=tale.policy(without=("acme",)))
    assert verdict.properties[0].state == "not evaluated"
    assert any("property at index 4" in doubt for doubt in verdict.doubts)
