"""Key events in a proof: what a key signed counts by its log index; evidence counts for ever."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.errors import InputError
from attest.keys import Role
from attest.policy import parse_policy, policy_text
from attest.trust import Ending, KeyEntry

OWNED = ("owner", "lab", "acme", "globex", "watch", "court")


def owned_policy(tale: ModuleType, **changes: Any) -> Any:
    """Return the readers' policy, in which every key has an owner."""
    owners = {tale.key(name).public: tale.key(f"{name}-owner").public for name in OWNED}
    base = tale.policy(**changes)
    keys = tuple(replace(entry, owner=owners.get(entry.public)) for entry in base.keys)
    return replace(base, keys=keys)


def audited(tale: ModuleType, who: str = "acme", **audit: Any) -> Any:
    """Tell a run up to its first audit."""
    story = tale.Story()
    story.open()
    story.tell_intent(who)
    story.fill(5)
    story.tell_final()
    story.tell_audit(who, **audit)
    return story


def seen(story: Any) -> Any:
    story.tell_property("globex")
    story.tell_status()
    return story


def level(tale: ModuleType, story: Any) -> str:
    return story.verify(policy=owned_policy(tale)).level.text


@pytest.mark.parametrize(("offset", "expected"), [(1, "sampled"), (0, "witnessed")])
def test_audit_counts_before_the_index_that_its_key_is_revoked_from(
    tale: ModuleType, offset: int, expected: str
) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", story.at["audit acme"] + offset)
    assert level(tale, seen(story)) == expected


def test_obeyed_and_foreign_events_are_said(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", 10**6)
    story.tell_key_event("revoke", "acme", 0, owner="thief", signers=["thief"])
    verdict = seen(story).verify(policy=owned_policy(tale))
    assert verdict.level.text == "sampled"
    assert any(words.startswith("keys: ") for words in verdict.checked)
    assert any("by keys not of the policy: key-event at index" in words for words in verdict.doubts)


@pytest.mark.parametrize("record", ["contract", "genesis", "attempt-1", "final"])
def test_runs_own_record_by_an_ended_key_is_refused(
    tale: ModuleType, refused: Any, record: str
) -> None:
    who = "owner" if record == "contract" else "lab"
    for offset, passes in ((1, record in ("contract", "final")), (0, False)):
        story = audited(tale)
        story.tell_key_event("revoke", who, story.at[record] + offset)
        seen(story)
        if passes:
            assert level(tale, story) == "sampled"
        else:
            refused("key range", story, policy=owned_policy(tale))


def test_successor_counts_for_the_same_operator(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_key_event("rotate", "acme", len(story.leaves) + 1, successor="acme-2")
    story.tell_intent("acme-2", auditor="acme")
    story.tell_final()
    story.tell_audit("acme-2", auditor="acme")
    verdict = seen(story).verify(policy=owned_policy(tale))
    assert (verdict.level.text, verdict.auditors) == ("sampled", ("acme",))
    # Without an owner in the policy nobody is obeyed: the successor is a stranger.
    assert story.verify().level.text == "witnessed"


@pytest.mark.parametrize("action", ["endorse", "rotate"])
def test_new_key_signs_nothing_before_its_event_is_logged(tale: ModuleType, action: str) -> None:
    story = tale.Story()
    story.open()
    story.tell_intent("acme-2", auditor="acme")
    story.tell_final()
    if action == "rotate":
        story.tell_key_event("rotate", "acme", 0, successor="acme-2")
    else:
        story.tell_key_event(
            "endorse", "acme-2", 0, owner="acme-owner", signers=["acme-owner", "acme-2"]
        )
    story.tell_audit("acme-2", auditor="acme")
    # Of many keys the one whose nonce draws a clean sample could be endorsed afterwards.
    assert level(tale, seen(story)) == "witnessed"


def test_endorsed_key_counts_for_its_owners_operator(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_key_event(
        "endorse", "acme-2", 0, owner="acme-owner", signers=["acme-owner", "acme-2"]
    )
    story.tell_intent("acme-2", auditor="acme")
    story.tell_final()
    story.tell_audit("acme-2", auditor="acme")
    assert level(tale, seen(story)) == "sampled"


def test_owner_gives_no_key_a_role_that_the_policy_did_not_give_him(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_key_event(
        "endorse", "fake", 0, role=Role.MONITOR, owner="acme-owner", signers=["acme-owner", "fake"]
    )
    story.tell_property("globex")
    story.tell_status(who="fake", monitor="acme")
    verdict = story.verify(policy=owned_policy(tale))
    assert "omissions not checked: the status is by no monitor of the policy" in verdict.doubts


def test_event_that_gives_a_key_another_role_than_the_policy_is_not_obeyed(
    tale: ModuleType,
) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", 0, role=Role.MONITOR)
    verdict = seen(story).verify(policy=owned_policy(tale))
    assert verdict.level.text == "sampled"
    assert not any(words.startswith("keys: ") for words in verdict.checked)


@pytest.mark.parametrize("second", ["globex", "wit-a", "globex-owner", "watch"])
def test_key_of_the_policy_gets_no_second_role(tale: ModuleType, refused: Any, second: str) -> None:
    story = audited(tale)
    story.tell_key_event("rotate", "acme", 10**6, successor=second)
    refused("one key, one role", seen(story), policy=owned_policy(tale))


def test_event_in_an_owners_name_must_bear_his_signature(tale: ModuleType, refused: Any) -> None:
    story = audited(tale)
    story.tell_key_event("rotate", "acme", 0, successor="acme-2", signers=["acme-owner"])
    refused("envelope signatures", seen(story), policy=owned_policy(tale))


def test_event_for_another_log_is_not_obeyed(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", 0, origin="log.example/other")
    verdict = seen(story).verify(policy=owned_policy(tale))
    assert verdict.level.text == "sampled"
    assert any("is for log log.example/other" in words for words in verdict.doubts)


def test_event_that_the_status_lists_cannot_be_left_out(tale: ModuleType, refused: Any) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", 0)
    seen(story)
    left_out = story.proof_but("revoke acme")
    refused("omissions", story, left_out, policy=owned_policy(tale))
    # With the status left out too, nobody knows, and the level says so.
    hidden = story.proof_but("revoke acme", "status", sizes=())
    assert story.verify(hidden, policy=owned_policy(tale)).level.text == "witnessed"


def test_refutation_is_not_voided_by_ending_its_key_later(tale: ModuleType, refused: Any) -> None:
    story = audited(tale, init="fail")
    story.tell_key_event("revoke", "acme", 0)
    refused("audit", seen(story), policy=owned_policy(tale))


def test_refutation_after_the_event_is_a_thiefs(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_key_event("revoke", "acme", len(story.leaves))
    story.tell_audit("acme", name="second", init="fail")
    assert level(tale, seen(story)) == "sampled"


def test_property_denied_by_a_key_ended_later_stays_denied(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_property("acme", correct=0, verdict="not met")
    story.tell_key_event("revoke", "acme", story.at["property acme"])
    verdict = seen(story).verify(policy=owned_policy(tale))
    assert [reading.state for reading in verdict.properties] == ["not met"]


def test_property_met_by_a_key_ended_later_counts_no_more(tale: ModuleType) -> None:
    story = audited(tale)
    story.tell_property("acme")
    story.tell_key_event("revoke", "acme", story.at["property acme"])
    story.tell_status()
    verdict = story.verify(policy=owned_policy(tale))
    assert [reading.state for reading in verdict.properties] == ["not evaluated"]


@pytest.mark.parametrize("who", ["lab", "court"])
def test_conflict_is_not_voided_by_ending_a_key(tale: ModuleType, refused: Any, who: str) -> None:
    story = audited(tale)
    at = story.at["final"] + 1 if who == "lab" else 0
    story.tell_final(name="other final", metrics={"loss": 1})
    first, second = (story.entry(story.at[name]) for name in ("final", "other final"))
    if who == "court":
        # A pair that shows nothing by itself: it is the reporter's word that counts.
        second = story.entry(story.at["genesis"])
    story.replace_entry(story.at["other final"], story.entry(story.at["intent acme"]))
    story.drop_last()
    story.tell_conflict(first, second, signer="court" if who == "court" else "stranger")
    story.tell_key_event("revoke", who, at)
    refused("conflict", seen(story), policy=owned_policy(tale))


def test_owner_comes_back_from_the_policys_text(tale: ModuleType) -> None:
    policy = owned_policy(tale)
    assert parse_policy(policy_text(policy)) == policy


def test_owner_has_no_other_role_and_one_operator(tale: ModuleType) -> None:
    policy = owned_policy(tale)
    for owner in ("globex", "log", "wit-a"):
        keys = tuple(
            replace(entry, owner=tale.key(owner).public) if entry.role is Role.RUN else entry
            for entry in policy.keys
        )
        with pytest.raises(InputError, match="one key, one role"):
            replace(policy, keys=keys)
    keys = tuple(replace(entry, owner=tale.key("o").public) for entry in policy.keys)
    with pytest.raises(InputError, match="two operators"):
        replace(policy, keys=keys)


def test_ended_key_accuses_by_what_it_signed_before_the_end_was_logged() -> None:
    entry = KeyEntry(Role.AUDITOR, bytes(32), "acme", endings=(Ending(7, 3), Ending(4, 6)))
    assert [i for i in range(9) if entry.covers(i)] == [0, 1, 2, 3]
    assert [i for i in range(9) if entry.accuses(i)] == [0, 1, 2, 3, 4, 5]
