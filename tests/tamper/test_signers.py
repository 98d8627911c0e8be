"""Every record is signed by exactly the right key: role, place in the log, operator."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.envelope import sign
from attest.statements import encode_statement


@pytest.mark.parametrize(
    ("name", "signer"),
    [
        ("contract", "lab"),
        ("contract", "stranger"),
        ("genesis", "stranger"),
        ("genesis", "owner"),
        ("attempt", "worker-1"),
        ("final", "worker-1"),
        ("final", "stranger"),
    ],
)
def test_record_signed_by_another_key_is_refused(
    tale: ModuleType, refused, name: str, signer: str
) -> None:
    story = tale.Story()
    for told in ("contract", "genesis", "attempt", "final"):
        options = {"signer": signer} if told == name else {}
        getattr(story, f"tell_{told}")(**options)
    refused("envelope signatures", story)


def garbled(story: Any, name: str, *, beside: str = "") -> Any:
    """Return the run's proof over a log in which one record's signature is broken."""
    whole = story.proof_and(beside) if beside else story.proof()
    index = story.at[name]
    envelope = story.entry(index)
    (signature,) = envelope.signatures
    bad = replace(signature, sig=bytes([signature.sig[0] ^ 1]) + signature.sig[1:])
    story.replace_entry(index, replace(envelope, signatures=(bad,)))
    return story.proof_of([r.index for r in whole.records], sizes=whole.sizes)


@pytest.mark.parametrize(
    "name",
    ["contract", "genesis", "attempt-1", "final", "intent acme", "audit acme", "property acme"],
)
def test_record_whose_signature_is_broken_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = tale.honest()
    # A status would have seen another root.
    story.drop_last()
    refused("envelope signatures", story, garbled(story, name))


def test_status_and_nonce_whose_signature_is_broken_are_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    refused("envelope signatures", story, garbled(story, "status"))
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme")
    refused("envelope signatures", story, garbled(story, "nonce acme", beside="nonce acme"))


def test_run_key_that_the_policy_does_not_name_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis(signer="stranger", run_key=tale.key("stranger").public.hex())
    story.tell_attempt(signer="stranger")
    story.tell_final(signer="stranger")
    refused("envelope signatures", story)


def test_second_signature_on_the_final_is_refused(tale: ModuleType, refused) -> None:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.drop_last()
    both = sign(encode_statement(story.final), [tale.key("lab"), tale.key("worker-1")])
    story.add_envelope("final", both, story.final)
    refused("envelope signatures", story)


@pytest.mark.parametrize("signers", [("worker-1",), ("worker-1", "stranger"), ("stranger",)])
def test_resumed_step_not_signed_by_its_attempts_keys_is_refused(
    tale: ModuleType, refused, signers: tuple[str, ...]
) -> None:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    workers = tuple(tale.key(name).public.hex() for name in ("worker-1", "worker-1b"))
    story.tell_attempt(worker_keys=workers, processes=2)
    step = story.tell_step(3, signers=signers)
    story.tell_attempt(number=2, step=3, resumed_from=step)
    story.tell_final()
    refused("envelope signatures", story)


def ranged(tale: ModuleType, name: str, **limits: int) -> Any:
    base = tale.policy()
    public = tale.key(name).public
    keys = tuple(replace(e, **limits) if e.public == public else e for e in base.keys)
    return replace(base, keys=keys)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("owner", {"from_index": 1}),
        ("lab", {"from_index": 2}),
        ("lab", {"to_index": 16}),
        ("lab", {"to_index": 2}),
    ],
)
def test_key_outside_its_index_range_is_refused(
    tale: ModuleType, refused, name: str, limits: dict[str, int]
) -> None:
    story = tale.honest()
    assert story.at["final"] == 16
    refused("key range", story, policy=ranged(tale, name, **limits))


def test_auditor_outside_his_index_range_does_not_count(tale: ModuleType) -> None:
    story = tale.honest()
    inside = story.verify(policy=ranged(tale, "acme", from_index=4, to_index=19))
    assert [line.operator for line in inside.audits] == ["acme"]
    outside = story.verify(policy=ranged(tale, "acme", to_index=17))
    assert outside.audits == ()
    assert outside.level.text == "witnessed"
    assert any("audit at index 17" in doubt for doubt in outside.doubts)


def test_monitor_outside_his_index_range_is_no_monitor(tale: ModuleType) -> None:
    verdict = tale.honest().verify(policy=ranged(tale, "watch", to_index=5))
    assert verdict.level.text == "witnessed"
    assert any(doubt.startswith("omissions not checked") for doubt in verdict.doubts)


@pytest.mark.parametrize("worker", ["lab", "acme", "owner", "wit-a", "log"])
def test_worker_key_with_another_role_is_refused(tale: ModuleType, refused, worker: str) -> None:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    story.tell_attempt(worker_keys=(tale.key(worker).public.hex(),))
    story.tell_final()
    refused("one key, one role", story)
    # A run key that the policy does not name is known from genesis.
    if worker == "lab":
        refused("one key, one role", story, policy=tale.policy(without=("lab",)))


@pytest.mark.parametrize("name", ["wit-a", "acme", "owner", "log"])
def test_run_key_with_another_role_is_refused(tale: ModuleType, refused, name: str) -> None:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis(signer=name, run_key=tale.key(name).public.hex())
    story.tell_attempt(signer=name)
    story.tell_final(signer=name)
    refused("one key, one role", story, policy=tale.policy(without=("lab",)))


def test_names_in_statements_are_those_of_the_policy(tale: ModuleType, refused) -> None:
    def told(**names: dict[str, str]) -> Any:
        story = tale.Story()
        story.tell_contract(**names.get("contract", {}))
        story.tell_genesis(**names.get("genesis", {}))
        story.tell_attempt()
        story.tell_intent("lab-audit", **names.get("intent", {}))
        story.tell_final()
        story.tell_audit("lab-audit", **names.get("audit", {}))
        story.tell_property("lab-audit", **names.get("property", {}))
        story.tell_status(**names.get("status", {}))
        return story

    assert told().verify().level.text == "witnessed"
    refused("operators", told(contract={"author": "acme"}))
    refused("operators", told(genesis={"trainer": "acme"}))
    for kind in ("intent", "audit", "property"):
        story = told(**{kind: {"auditor": "acme"}})
        where = f"{kind} at index {story.at[f'{kind} lab-audit']}"
        words = f"not counted: {where} says acme, the policy gives its key to lab"
        verdict = story.verify()
        assert words in verdict.doubts
        assert (verdict.audits == ()) is (kind == "audit")
        assert (verdict.properties[0].state == "not evaluated") is (kind == "property")
    refused("operators", told(status={"monitor": "acme"}))
