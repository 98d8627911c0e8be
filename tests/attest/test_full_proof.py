"""Anybody may log audits of a run: its proof keeps below the cap, and hides nothing by it."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.errors import RefusedError
from attest.level import Level
from attest.proof import FULL_PROOF_BYTES, MAX_PROOF_BYTES, RunProof, encode_proof
from attest.statements import Audit, ContractStatement, Intent
from attest.trust import Requirement

STRANGERS = 420
# As much text as makes a few hundred audits more than a proof holds.
NOISE = {"note": "x" * 3000}


def flooded(tale: ModuleType, *, key_of: Any = None, refuting: bool = False) -> Any:
    """Tell a run with hundreds of audits by strangers before those of acme and globex."""
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.fill(12)
    story.tell_final()
    for number in range(STRANGERS):
        who = f"stranger-{number}" if key_of is None else key_of
        story.tell_audit(who, sources=(), name=f"audit {number}", k=4 + number,
                         environment=NOISE)  # fmt: skip
    story.tell_audit("acme")
    story.tell_property("acme")
    if refuting:
        story.tell_audit("globex", sources=(), init="fail")
    story.tell_status()
    return story


@pytest.fixture(scope="module")
def crowd(tale: ModuleType) -> Any:
    return flooded(tale)


def keyids(tale: ModuleType, *names: str) -> list[str]:
    return [tale.key(name).keyid for name in names]


def auditors(proof: RunProof) -> list[str]:
    audits = proof.of_kind(Audit)
    return [record.statement.auditor for record in audits if isinstance(record.statement, Audit)]


def doubt(verdict: Any) -> str:
    (words,) = (d for d in verdict.doubts if d.startswith("omissions not checked: "))
    return words


def test_hundreds_of_strangers_leave_a_valid_proof_below_the_cap(
    tale: ModuleType, crowd: Any
) -> None:
    proof = crowd.proof(preferred=keyids(tale, "acme", "globex"))
    size = len(encode_proof(proof))
    assert FULL_PROOF_BYTES <= size <= MAX_PROOF_BYTES
    verdict = crowd.verify(proof)
    (audit,) = verdict.audits
    assert (audit.operator, audit.passed) == ("acme", 20)
    left_out = STRANGERS + 1 - len(auditors(proof))
    assert left_out > 100
    assert f"the proof is full and leaves out {left_out:,} records that the status" in doubt(
        verdict
    )


def test_a_full_proof_reaches_witnessed_and_no_more(tale: ModuleType, crowd: Any) -> None:
    verdict = crowd.verify(crowd.proof(preferred=keyids(tale, "acme")))
    assert verdict.level is Level.WITNESSED
    assert verdict.exit_code == 1  # the policy asks for `sampled` and a property
    assert any("omissions not checked" in words for words in verdict.unmet)
    modest = replace(tale.policy(), require=Requirement(Level.WITNESSED))
    assert crowd.verify(crowd.proof(), policy=modest).exit_code == 0


def test_the_same_run_without_strangers_is_sampled(tale: ModuleType) -> None:
    assert tale.honest().verify().level is Level.SAMPLED


def test_refuting_audit_goes_in_first_where_its_key_is_preferred(tale: ModuleType) -> None:
    story = flooded(tale, refuting=True)
    proof = story.proof(preferred=keyids(tale, "globex"))
    with pytest.raises(RefusedError, match="globex refutes init") as caught:
        story.verify(proof)
    assert caught.value.check == "audit"


def test_refuting_audit_hidden_behind_strangers_costs_the_level_and_shows(tale: ModuleType) -> None:
    story = flooded(tale, refuting=True)
    hiding = [tale.key(f"stranger-{n}").keyid for n in range(STRANGERS)]
    proof = story.proof(preferred=[*hiding, *keyids(tale, "acme")])
    assert "globex" not in auditors(proof)
    verdict = story.verify(proof)
    assert verdict.level is Level.WITNESSED
    assert "leaves out" in doubt(verdict)


def test_proof_that_is_not_full_may_leave_out_nothing(tale: ModuleType, crowd: Any) -> None:
    proof = crowd.proof(preferred=keyids(tale, "acme"))
    strangers = [r.index for r in proof.of_kind(Audit) if r.signer != tale.key("acme").keyid]
    while len(encode_proof(proof)) >= FULL_PROOF_BYTES:
        dropped = {strangers.pop() for _ in range(8)}
        kept = [record.index for record in proof.records if record.index not in dropped]
        proof = crowd.proof_of(kept, sizes=proof.sizes)
    with pytest.raises(RefusedError, match="the proof leaves out the audit at index") as caught:
        crowd.verify(proof)
    assert caught.value.check == "omissions"


def test_many_records_of_one_key_crowd_out_their_own(tale: ModuleType) -> None:
    story = flooded(tale, key_of="stranger")
    # Nobody is preferred: each key's first record still comes before any key's second.
    proof = story.proof()
    assert "acme" in auditors(proof)
    assert story.verify(proof).audits[0].operator == "acme"


def test_intents_that_preferred_audits_rest_on_are_in(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    for number in range(1900):
        story.tell_intent(f"stranger-{number}")
    story.tell_intent("globex")
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme", sources=("acme", "globex"))
    story.tell_status()
    proof = story.proof(preferred=keyids(tale, "acme"))
    assert len(proof.of_kind(Intent)) < 1902
    assert story.verify(proof).audits[0].operator == "acme"


def test_run_of_twelve_attempts_lists_none_and_counts_them(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    for number in range(2, 13):
        story.tell_attempt(number=number)
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_property("acme")
    story.tell_status()
    proof = story.proof()
    assert not [record for record in proof.records if record.statement.KIND == "attempt"]
    verdict = story.verify(proof)
    assert (verdict.level, verdict.attempts) == (Level.SAMPLED, 12)
    # The number in the final record is the trainer's word: a status counts again.
    lying = tale.Story()
    lying.open()
    for number in range(2, 13):
        lying.tell_attempt(number=number)
    lying.tell_final(attempts=11)
    lying.tell_status()
    with pytest.raises(RefusedError, match="lists 12 attempts, the final record counts 11"):
        lying.verify()


@pytest.mark.parametrize("kind", ["step", "segment"])
def test_stranger_who_writes_the_type_of_a_step_leaves_the_proof_whole(
    tale: ModuleType, kind: str
) -> None:
    words = f"https://anh-jax.dev/attest/{kind}/v1"
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_intent("stranger", auditor=words)
    story.fill(12)
    story.tell_final()
    story.tell_audit("acme")
    story.tell_property("acme")
    story.tell_audit("stranger", sources=(), environment={"predicateType": words, "note": words})
    story.tell_status()
    assert story.verify().level is Level.SAMPLED


def test_stranger_who_publishes_the_contract_first_is_not_its_author(tale: ModuleType) -> None:
    story = tale.Story()
    story.contract = tale.contract(story.steps)
    story.add("front", ContractStatement("stranger", story.contract), "stranger")
    story.open()
    story.tell_final()
    story.tell_status()
    proof = story.proof(preferred=keyids(tale, "owner", "lab"))
    assert story.verify(proof, policy=replace(tale.policy(), require=Requirement(Level.LOGGED)))
