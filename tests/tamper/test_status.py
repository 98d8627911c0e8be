"""The monitor's status: what the prover leaves out is found, what nobody watched is said."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.statements import LogHead

Change = Callable[[Any], dict[str, Any]]


def retold(tale: ModuleType, change: Change) -> Any:
    """Tell an honest run whose status has some fields replaced."""
    story = tale.honest()
    story.drop_last()
    story.tell_status(**change(story))
    return story


NAMES = ["contract", "genesis", "attempt-1", "intent acme", "final", "audit acme", "property acme"]


def proof_with_status(story: Any) -> Any:
    """Return the proof with the status in it, whether or not it covers the other records."""
    indices = [story.at[name] for name in (*NAMES, "status")]
    size = story.statements[story.at["status"]].log.size
    return story.proof_of(indices, sizes=[size] if size < len(story.leaves) else [])


def head(**changes: Any) -> Change:
    def change(story: Any) -> dict[str, Any]:
        seen = LogHead("log.example/runs", len(story.leaves), story.root().hex())
        return {"log": replace(seen, **changes)}

    return change


def entries(**changes: Any) -> Change:
    def change(story: Any) -> dict[str, Any]:
        (own,) = story._runs()
        return {"runs": (replace(own, **changes),)}

    return change


def older_than_the_property(story: Any) -> dict[str, Any]:
    size = story.at["property acme"]
    return head(size=size, root=story.root(size).hex())(story) | entries(properties=())(story)


STATUS: dict[str, Change] = {
    "of another contract": lambda story: {"contract": "a" * 64},
    "of another log": head(origin="other.example"),
    "of another root": head(root="a" * 64),
    "older than a record": older_than_the_property,
    "without the run": lambda story: {"runs": ()},
    "with another genesis": entries(genesis=0),
    "that misses the attempt": entries(attempts=()),
    "that misses the intent": entries(intents=()),
    "that misses the audit": entries(audits=()),
    "that misses the property": entries(properties=()),
}


@pytest.mark.parametrize("name", STATUS)
def test_status_that_does_not_fit_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = retold(tale, STATUS[name])
    refused("status", story, proof_with_status(story))


def test_record_logged_after_the_status_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    story.tell_nonce("acme")
    indices = [*(story.at[name] for name in NAMES), story.at["status"], story.at["nonce acme"]]
    refused("status", story, story.proof_of(indices, sizes=[story.at["status"]]))


@pytest.mark.parametrize("finals", [(), (3,), (3, 16), (16, 17)])
def test_status_must_list_the_one_final(tale: ModuleType, refused, finals: tuple[int, ...]) -> None:
    story = retold(tale, entries(finals=finals))
    refused("one final", story, proof_with_status(story))


@pytest.mark.parametrize("name", ["attempts", "intents", "audits", "properties", "conflicts"])
def test_record_that_the_status_lists_must_be_in_the_proof(
    tale: ModuleType, refused, name: str
) -> None:
    def one_more(story: Any) -> dict[str, Any]:
        (own,) = story._runs()
        return entries(**{name: (*getattr(own, name), len(story.leaves) - 1)})(story)

    def own_last(story: Any) -> dict[str, Any]:
        (own,) = story._runs()
        return entries(**{name: tuple(sorted({*getattr(own, name), 7}))})(story)

    story = retold(tale, own_last if name in ("intents", "properties") else one_more)
    refused("omissions", story, proof_with_status(story))


def test_intent_on_the_contract_before_the_final_must_be_in_the_proof(
    tale: ModuleType, refused
) -> None:
    story = retold(tale, lambda story: {"contract_intents": (5,)})
    refused("omissions", story, proof_with_status(story))
    later = retold(tale, lambda story: {"contract_intents": (17,)})
    assert later.verify(proof_with_status(later)).level.text == "sampled"


@pytest.mark.parametrize("name", ["audit acme", "property acme", "intent globex", "attempt-2"])
def test_record_left_out_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = tale.Story()
    story.open()
    for number in range(2, 10):
        story.tell_attempt(number=number)
    story.tell_intent("globex")
    story.tell_final()
    story.tell_audit("acme", sources=())
    story.tell_property("acme")
    story.tell_status()
    if name == "attempt-2":
        # Attempts too many to list are counted.
        (own,) = story._runs()
        story.drop_last()
        story.tell_status(runs=(replace(own, attempts=own.attempts[:-1]),))
        refused("omissions", story)
    else:
        refused("omissions", story, story.proof_but(name))


def test_refuting_audit_cannot_be_left_out(tale: ModuleType, refused) -> None:
    story = tale.honest()
    story.drop_last()
    story.tell_audit("globex", sources=(), init="fail")
    refused("omissions", told_status(story), story.proof_but("audit globex"))
    refused("audit", story)
    # Without a status nobody knows, and the client says so.
    hidden = story.verify(story.proof_but("audit globex", "status", sizes=()))
    assert hidden.level.text == "witnessed"
    assert hidden.exit_code == 1
    assert "omissions not checked: no status by a monitor" in hidden.doubts


def told_status(story: Any) -> Any:
    story.tell_status()
    return story


def test_root_at_the_status_size_must_be_shown(tale: ModuleType, refused) -> None:
    story = tale.honest()
    indices = [record.index for record in story.proof().records]
    refused("status", story, story.proof_of(indices))


def test_status_checkpoint_must_be_of_the_status_size(tale: ModuleType, refused) -> None:
    story = tale.honest()
    elsewhere = story.checkpoint(size=5)
    refused("status", story, story.proof(status_checkpoint=elsewhere, sizes=(5,)))
    refused("status", story, story.proof(status_checkpoint=elsewhere))


def busy(tale: ModuleType, *, time: int | None) -> tuple[Any, Any]:
    """Tell an honest run in a log where others write between the status and the checkpoint."""
    story = tale.honest()
    size = story.statements[story.at["status"]].log.size
    story.fill(9)
    seen = None if time is None else story.checkpoint(size=size, time=time)
    return story, story.proof(status_checkpoint=seen)


def test_status_in_a_busy_log_is_dated_by_its_own_checkpoint(tale: ModuleType) -> None:
    story, proof = busy(tale, time=tale.NOW - 3600)
    verdict = story.verify(proof)
    assert verdict.level.text == "sampled"
    assert any("3,600 s old" in words for words in verdict.checked)


@pytest.mark.parametrize(
    ("time", "doubt"),
    [
        (None, "no witness says when"),
        (-8 * 24 * 3600, "the policy takes 604800 s"),
        (301, "ahead of this machine's clock"),
    ],
)
def test_status_that_is_not_fresh_leaves_omissions_unchecked(
    tale: ModuleType, time: int | None, doubt: str
) -> None:
    story, proof = busy(tale, time=None if time is None else tale.NOW + time)
    verdict = story.verify(proof)
    assert verdict.level.text == "witnessed"
    (words,) = (d for d in verdict.doubts if d.startswith("omissions not checked: "))
    assert doubt in words


def test_old_checkpoint_over_a_status_is_not_fresh(tale: ModuleType) -> None:
    story = tale.honest()
    week = 7 * 24 * 3600
    for age, level in ((week, "sampled"), (week + 1, "witnessed")):
        proof = story.proof(story.checkpoint(time=tale.NOW - age))
        assert story.verify(proof).level.text == level


def test_status_by_the_trainers_own_monitor_leaves_omissions_unchecked(tale: ModuleType) -> None:
    base = tale.policy()
    keys = tuple(
        replace(e, operator="lab") if e.public == tale.key("watch").public else e for e in base.keys
    )
    story = retold(tale, lambda story: {"monitor": "lab"})
    verdict = story.verify(policy=replace(base, keys=keys))
    assert verdict.level.text == "witnessed"
    assert any("trainer's own operator" in doubt for doubt in verdict.doubts)


def test_status_by_no_monitor_of_the_policy_leaves_omissions_unchecked(tale: ModuleType) -> None:
    story = tale.honest()
    verdict = story.verify(policy=tale.policy(without=("watch",)))
    assert verdict.level.text == "witnessed"
    assert "omissions not checked: the status is by no monitor of the policy" in verdict.doubts


def test_other_run_that_has_only_its_genesis_is_listed(tale: ModuleType) -> None:
    story = tale.honest()
    story.drop_last()
    run = story.run
    story.tell_genesis(plan=tale.digest("another plan"))
    story.records["genesis"] = run
    story.tell_status()
    assert story.verify().runs == 2


@pytest.mark.parametrize("about", ["run", "contract"])
def test_late_intent_by_a_stranger_changes_nothing(tale: ModuleType, about: str) -> None:
    story = tale.honest()
    story.drop_last()
    story.tell_intent("stranger", about=about)
    story.tell_status()
    assert story.verify().level.text == "sampled"
