"""Somebody who was not there judges receipts by an answer that was fixed before them."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.canary import CanaryAnswer, canary_nonce, check_canary, drawn_faults
from attest.errors import FormatError, RefusedError
from attest.merkle import tree_root
from attest.proof import encode_proof
from attest.sample import commitment, sample_steps
from attest.statements import Counts

SALT = b"s" * 32
STEPS = 21  # 20 drawn and the last one


class Tried:
    """A canary run of 1,000 steps, whose maker commits to the first three steps that acme draws."""

    def __init__(self, tale: ModuleType, *, late: bool = False) -> None:
        self.tale = tale
        self.story = tale.Story()
        self.story.open()
        self.story.tell_intent("acme")
        self.story.tell_intent("globex")
        if not late:
            # Nobody foresees a sample: the maker names every step, and so hits it.
            self.commit(range(1, 1000))
        self.story.tell_final()
        if late:
            self.commit(range(1, 1000))

    def commit(self, faults: Any) -> None:
        self.answer = CanaryAnswer(self.story.run, SALT, tuple(faults))
        sealed = commitment(self.answer.nonce).hex()
        self.story.tell_intent("lab-audit", commitment=sealed)

    def told(self, **options: Any) -> Any:
        policy = options.pop("policy", None) or self.tale.policy()
        proof = encode_proof(options.pop("proof", None) or self.story.proof())
        return check_canary(options.pop("answer", self.answer), proof, policy)


def refuting(steps: int = STEPS) -> dict[str, Any]:
    return {"steps": steps, "counts": Counts(1, steps - 1, 0, 0)}


def test_auditor_who_refutes_is_found_and_one_who_passes_is_lazy(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme", **refuting())
    tried.story.tell_audit("globex", gradient_roots=tale.digest("other"))
    first, second = tried.told()
    assert (first.operator, first.finding) == ("acme", "found")
    assert (second.operator, second.finding, len(second.hits)) == ("globex", "lazy", 20)
    # Only the last step was not faulty.
    assert "it passed 21 steps" in second.words


def test_same_gradients_of_another_key_are_a_copy(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme", **refuting())
    tried.story.tell_audit("globex", **refuting())
    tried.story.tell_audit("acme", name="again", **{**refuting(), "environment": {}})
    assert [t.finding for t in tried.told()] == ["found", "copied", "found"]


def test_auditor_who_computed_no_gradient_is_lazy_whatever_he_refutes(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme", **refuting(), gradient_roots=tree_root([]).hex())
    (found,) = tried.told()
    assert (found.finding, found.words) == ("lazy", "it computed no gradient of its own")


def test_answer_of_another_run_is_refused(tale: ModuleType) -> None:
    other = replace(Tried(tale).answer, run="1" * 64)
    with pytest.raises(RefusedError, match="the answer is of run 1111"):
        Tried(tale).told(answer=other)


def test_commitment_after_the_final_record_seals_nothing(tale: ModuleType) -> None:
    tried = Tried(tale, late=True)
    tried.story.tell_audit("acme")
    whole = tried.story.proof_and("intent lab-audit")
    with pytest.raises(RefusedError, match="not committed to before the final record"):
        tried.told(proof=whole)


def test_receipt_of_another_final_record_is_refused(tale: ModuleType) -> None:
    for field in ("final", "run"):
        tried = Tried(tale)
        tried.story.tell_audit("acme", **{field: tale.digest("other")})
        proof = tried.story.proof_and("audit acme") if field == "run" else None
        with pytest.raises(RefusedError, match="of another run or final record"):
            tried.told(proof=proof)


def test_receipt_of_an_auditor_whom_the_policy_does_not_name_is_nobodys(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme", **refuting())
    tried.story.tell_audit("stranger", sources=("acme",), gradient_roots=tale.digest("other"))
    assert [t.operator for t in tried.told()] == ["acme"]
    assert tried.told(policy=tale.policy(without=("acme",))) == ()


def test_proof_itself_is_checked_as_the_light_client_checks_it(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme")
    proof = tried.story.proof()
    damaged = replace(proof, nodes=(b"n" * 32, *proof.nodes[1:]))
    with pytest.raises(RefusedError, match="inclusion"):
        tried.told(proof=damaged)
    stranger = replace(tale.policy(), contracts=("0" * 64,))
    with pytest.raises(RefusedError, match="accepted"):
        tried.told(policy=stranger)


def test_sample_of_a_receipt_is_drawn_again(tale: ModuleType) -> None:
    tried = Tried(tale)
    tried.story.tell_audit("acme")
    audit = tried.story.statements[tried.story.at["audit acme"]]
    key = tale.key("acme").keyid
    run, final = bytes.fromhex(audit.run), bytes.fromhex(audit.final)
    drawn = sample_steps(run, final, {key: tale.nonce_of("acme")}, 1000, 20)
    assert drawn_faults(audit, tried.answer, 1000) == tuple(sorted(set(drawn) - {1000}))
    none = replace(tried.answer, faults=(min(set(range(1, 1000)) - set(drawn)),))
    assert drawn_faults(audit, none, 1000) == ()
    assert drawn_faults(audit, none, 1000, added=none.faults) == none.faults
    chosen = replace(audit, sample="chosen", sources=())
    assert drawn_faults(chosen, tried.answer, 1000) is None


def test_commitment_is_to_run_salt_and_every_step() -> None:
    base = canary_nonce("1" * 64, SALT, (3, 7))
    others = [("2" * 64, SALT, (3, 7)), ("1" * 64, bytes(32), (3, 7)), ("1" * 64, SALT, (3, 8))]
    assert all(canary_nonce(*other) != base for other in others)
    answer = CanaryAnswer("1" * 64, SALT, (3, 7))
    assert CanaryAnswer.from_bytes(answer.to_bytes()) == answer


@pytest.mark.parametrize(
    "answer",
    [
        CanaryAnswer("1" * 64, SALT, (3, 3)),
        CanaryAnswer("1" * 64, SALT, (7, 3)),
        CanaryAnswer("1" * 64, SALT, ()),
        CanaryAnswer("1" * 64, SALT, (0, 3)),
        CanaryAnswer("1" * 64, SALT[:31], (3, 7)),
        CanaryAnswer("1" * 62, SALT, (3, 7)),
    ],
    ids=str,
)
def test_answer_of_another_form_is_none(answer: CanaryAnswer) -> None:
    with pytest.raises(FormatError):
        CanaryAnswer.from_bytes(answer.to_bytes())
    for data in (b"", b"[]", answer.to_bytes() + b"\n", b'{"faults":[]}'):
        with pytest.raises(FormatError):
            CanaryAnswer.from_bytes(data)
