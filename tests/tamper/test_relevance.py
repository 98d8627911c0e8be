"""Every record of a proof is about its run and used: nothing rides along unseen."""

from dataclasses import replace
from types import ModuleType

import pytest

from attest.statements import Held


def test_record_of_a_kind_without_a_place_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    held = Held("state", tale.digest("last state"), "lab", "2030-01-31T00:00:00Z")
    story.add("held", held, "lab-audit")
    refused("relevance", story, story.proof_and("held"))


def test_second_contract_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    story.add("contract 2", replace(story.statements[0], author="globex"), "owner")
    refused("relevance", story, story.proof_and("contract 2"))


def test_second_genesis_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    story.add("genesis 2", replace(story.statements[1], plan=tale.digest("plan 2")), "lab")
    refused("relevance", story, story.proof_and("genesis 2"))


@pytest.mark.parametrize("name", ["contract", "genesis", "final"])
def test_missing_record_of_the_run_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = tale.honest()
    refused("relevance", story, story.proof_but(name))


def test_step_that_no_attempt_resumes_from_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_step(1)
    story.tell_final()
    refused("relevance", story, story.proof_and("step-1"))


def test_intent_on_another_run_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", target=tale.digest("another run"))
    story.tell_final()
    refused("relevance", story, story.proof_and("intent acme"))


def test_intent_on_another_contract_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", about="contract", target=tale.digest("another contract"))
    story.tell_final()
    refused("relevance", story, story.proof_and("intent acme"))


def test_nonce_of_an_intent_that_cannot_be_used_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme")
    names = ["contract", "genesis", "attempt-1", "final", "nonce acme"]
    refused("relevance", story, story.proof_of(story.at[n] for n in names))
    whole = story.proof_of(story.at[n] for n in (*names, "intent acme"))
    doubts = story.verify(whole, policy=tale.policy(without=("acme",))).doubts
    assert any("2 records by keys not of the policy" in doubt for doubt in doubts)


@pytest.mark.parametrize("name", ["audit", "property", "intent"])
def test_auditor_not_named_by_the_policy_counts_for_nothing_and_is_said_to(
    tale: ModuleType, name: str
) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    # Not even a refutation is heard from whom the reader does not trust.
    story.tell_audit("acme", sources=(), init="fail")
    story.tell_property("acme", correct=0, verdict="not met")
    verdict = story.verify(policy=tale.policy(without=("acme",)))
    assert verdict.level.text == "witnessed"
    assert verdict.audits == ()
    assert verdict.properties[0].state == "not evaluated"
    (words,) = (doubt for doubt in verdict.doubts if doubt.startswith("not counted"))
    assert words.startswith("not counted: 3 records by keys not of the policy: ")
    assert f"{name} at index {story.at[f'{name} acme']}" in words


def test_conflict_that_shows_none_counts_for_nothing_and_is_said_to(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_final()
    first, second = (story.entry(story.at[n]) for n in ("genesis", "attempt-1"))
    story.tell_conflict(first, second, signer="stranger")
    verdict = story.verify()
    assert any("conflict at index 4" in doubt for doubt in verdict.doubts)


def test_two_statuses_are_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    first = story.at["status"]
    story.tell_status()
    indices = [first, *(record.index for record in story.proof().records)]
    refused("relevance", story, story.proof_of(indices, sizes=(first, first + 1)))


def test_status_checkpoint_without_a_status_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    seen = story.checkpoint(size=5)
    refused("relevance", story, story.proof_but("status", status_checkpoint=seen))
