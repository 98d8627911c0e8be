"""Audits: of this final record, by a sample nobody could choose, adding up, refuting nothing."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.statements import Counts, Nonce, Worst

WITHIN = Worst(*["0x1.0000000000000p-2"] * 6)
BOUNDED: dict[str, Any] = {"method": "bounded", "worst": WITHIN}


def audited(tale: ModuleType, who: str = "acme", **changes: Any) -> Any:
    story = tale.Story()
    story.open()
    story.tell_intent(who)
    story.tell_final()
    story.tell_audit(who, **changes)
    return story


def rewritten(tale: ModuleType, **changes: Any) -> Any:
    """Tell the audit that fits, with fields replaced that its telling would follow."""
    story = audited(tale)
    audit = replace(story.statements[story.at["audit acme"]], **changes)
    story.drop_last()
    story.add("audit acme", audit, "acme")
    return story


def source(tale: ModuleType) -> Any:
    story = audited(tale)
    return story.statements[story.at["audit acme"]].sources[0]


STEPS = 21  # 20 drawn and the last one


def test_audit_of_another_run_or_final_is_refused(tale: ModuleType, refused) -> None:
    story = audited(tale, run=tale.digest("another run"))
    refused("audit", story, story.proof_and("audit acme"))
    refused("audit", audited(tale, final=tale.digest("another final")))


@pytest.mark.parametrize("who", ["acme", "lab-audit"])
@pytest.mark.parametrize("method", [{}, BOUNDED], ids=["exact", "bounded"])
def test_audit_that_refutes_a_step_refuses_the_run(
    tale: ModuleType, refused, who: str, method: dict[str, Any]
) -> None:
    counts = Counts(STEPS - 1, 1, 0, 0)
    refused("audit", audited(tale, who, counts=counts, steps=STEPS, **method))


@pytest.mark.parametrize("field", ["init", "export", "line", "walk", "drift"])
def test_audit_that_refutes_a_part_refuses_the_run(tale: ModuleType, refused, field: str) -> None:
    refused("audit", audited(tale, **BOUNDED, **{field: "fail"}))


@pytest.mark.parametrize("name", ["audit", "nonce"])
def test_receipt_logged_before_the_final_is_refused(tale: ModuleType, refused, name: str) -> None:
    whole, story = audited(tale), tale.Story()
    story.open()
    story.tell_intent("acme")
    story.final, story.records["final"] = whole.final, whole.records["final"]
    getattr(story, f"tell_{name}")("acme")
    story.tell_final()
    assert story.records["final"] == whole.records["final"]
    refused("order", story, story.proof_and(f"{name} acme"))


@pytest.mark.parametrize("about", ["run", "contract"])
def test_late_intent_is_refused(tale: ModuleType, refused, about: str) -> None:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_intent("acme", about=about)
    refused("order", story, story.proof_and("intent acme"))
    # Whom the policy does not name may announce what he likes.
    assert story.verify(story.proof_and("intent acme"), policy=tale.policy(without=("acme",)))


NONSENSE: dict[str, dict[str, Any]] = {
    "of another final": {"final": "a" * 64},
    "of no sample": {"k": 1000, "steps": 1, "counts": Counts(1, 0, 0, 0)},
    "a refutation": {"counts": Counts(STEPS - 1, 1, 0, 0)},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_by_a_key_the_policy_does_not_name_is_counted_and_ignored(
    tale: ModuleType, name: str
) -> None:
    story = audited(tale)
    story.tell_audit("stranger", sources=("acme",), **NONSENSE[name])
    story.tell_status()
    verdict = story.verify()
    assert verdict.level.text == "sampled"
    where = f"audit at index {story.at['audit stranger']}"
    assert f"not counted: 1 record by keys not of the policy: {where}" in verdict.doubts


def test_many_records_by_unnamed_keys_are_told_by_their_number(tale: ModuleType) -> None:
    story = audited(tale)
    for number in range(10):
        story.tell_audit("stranger", sources=(), name=f"audit {number}", k=number + 1)
    doubts = [doubt for doubt in story.verify().doubts if doubt.startswith("not counted")]
    assert len(doubts) == 1
    assert doubts[0].startswith("not counted: 10 records by keys not of the policy: audit at index")
    assert doubts[0].count("audit at") == 8 and doubts[0].endswith(", ...")


def test_source_that_is_not_in_the_proof_is_refused(tale: ModuleType, refused) -> None:
    story = audited(tale)
    refused("sources", story, story.proof_but("intent acme"))


def test_nonce_replayed_from_another_run_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", target=tale.digest("another run"))
    story.tell_final()
    story.tell_audit("acme")
    refused("sources", story)
    refused("relevance", story, story.proof_and("intent acme"))


def test_nonce_that_was_not_committed_is_refused(tale: ModuleType, refused) -> None:
    wrong = replace(source(tale), nonce="00" * 32)
    refused("sources", rewritten(tale, sources=(wrong,)))
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme", nonce="00" * 32)
    refused("sources", story, story.proof_and("nonce acme"))


def test_nonce_that_another_key_reveals_is_refused(tale: ModuleType, refused) -> None:
    """Both keys are auditors of the policy; a nonce is revealed by whoever committed to it."""
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    nonce = Nonce(story.records["intent acme"], tale.nonce_of("acme").hex())
    story.add("nonce acme", nonce, "globex")
    refused("envelope signatures", story, story.proof_and("nonce acme"))


def test_intent_given_to_another_key_is_refused(tale: ModuleType, refused) -> None:
    wrong = replace(source(tale), keyid=tale.key("globex").keyid)
    refused("sources", rewritten(tale, sources=(wrong,)))


def test_second_intent_of_a_key_is_refused_as_source(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", name="first", commitment=tale.digest("another nonce"))
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    refused("sources", story)


def test_intent_on_the_contract_counts_as_first_too(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", about="contract", name="first", commitment=tale.digest("other"))
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    refused("sources", story)


def test_audit_must_count_its_whole_sample(tale: ModuleType, refused) -> None:
    assert audited(tale).statements[5].steps == STEPS
    refused("sample", audited(tale, steps=STEPS - 1, counts=Counts(STEPS - 1, 0, 0, 0)))
    # One attempt overlaps with none: nothing may be added but the last step.
    refused("sample", audited(tale, steps=STEPS + 1, counts=Counts(STEPS + 1, 0, 0, 0)))


def test_withheld_steps_are_counted_as_selected(tale: ModuleType, refused) -> None:
    withheld = {"steps": STEPS - 1, "counts": Counts(STEPS - 1, 0, 0, 1)}
    assert audited(tale, **withheld).verify().audits[0].withheld == 1
    refused("sample", audited(tale, steps=STEPS, counts=Counts(STEPS, 0, 0, 1)))


def test_overlapped_step_of_a_later_attempt_may_be_added(tale: ModuleType, refused) -> None:
    for added, fits in ((0, True), (1, True), (2, False)):
        story = tale.Story()
        story.open()
        story.tell_attempt(number=2)
        story.tell_intent("acme")
        story.tell_final()
        count = STEPS + added
        story.tell_audit("acme", steps=count, counts=Counts(count, 0, 0, 0))
        if fits:
            assert story.verify().audits[0].passed == 20
        else:
            refused("sample", story)


def test_last_step_in_the_sample_is_not_counted_twice(tale: ModuleType, refused) -> None:
    story = tale.Story(steps=20)
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    assert story.statements[story.at["audit acme"]].steps == 20
    assert story.verify().audits[0].passed == 20
    story.drop_last()
    story.tell_audit("acme", steps=21, counts=Counts(21, 0, 0, 0))
    refused("sample", story)


def test_chosen_steps_are_at_most_all(tale: ModuleType, refused) -> None:
    chosen = {"sources": (), "sample": "chosen"}
    most = audited(tale, **chosen, steps=999, counts=Counts(999, 0, 0, 1))
    assert most.verify().audits[0].drawn == 1000
    refused("sample", audited(tale, **chosen, steps=1000, counts=Counts(1000, 0, 0, 1)))


@pytest.mark.parametrize("k", [0, 1001])
def test_sample_outside_one_to_all_steps_is_refused(tale: ModuleType, refused, k: int) -> None:
    refused("sample", rewritten(tale, k=k))


def test_sample_too_large_to_draw_is_refused_at_once(tale: ModuleType, refused) -> None:
    story = tale.Story(steps=2**40)
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    audit = replace(story.statements[story.at["audit acme"]], k=2**30)
    story.drop_last()
    story.add("audit acme", audit, "acme")
    refused("sample", story)


def test_sample_depends_on_the_nonces_of_the_sources(tale: ModuleType, refused) -> None:
    # With k = T - 1 the last step is in nearly every sample, and its count tells which was drawn.
    story = tale.Story(steps=2, k=1)
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    steps = story.statements[story.at["audit acme"]].steps
    assert story.verify(policy=tale.policy()).audits[0].drawn == 1
    story.drop_last()
    other = 3 - steps
    story.tell_audit("acme", steps=other, counts=Counts(other, 0, 0, 0))
    refused("sample", story)
