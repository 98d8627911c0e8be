"""The light client refuses, by the name of the check, every run told wrong in one place."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest

from attest.check import CHECKS
from attest.envelope import sign
from attest.errors import RefusedError
from attest.keys import Role
from attest.note import KeyName, Note, NoteSignature
from attest.proof import RunProof, encode_proof
from attest.statements import Counts, Held, LogHead, Segment, Threshold, encode_statement
from attest.trust import NumericsDemand


@dataclass(frozen=True)
class Case:
    """A run told wrong: the proof, and what the reader brings."""

    story: Any
    proof: RunProof | None = None
    options: dict[str, Any] = field(default_factory=dict)


Teller = Callable[[ModuleType], Case]
CASES: dict[str, tuple[str, Teller]] = {}


def wrong(check: str) -> Callable[[Teller], Teller]:
    def note(teller: Teller) -> Teller:
        CASES[teller.__name__.strip("_")] = (check, teller)
        return teller

    return note


@pytest.mark.parametrize("name", CASES_BELOW := [])
def test_placeholder(name: str) -> None:
    """Replaced below, when all cases are known."""


# --- head ---


@wrong("checkpoint")
def line_of_an_unknown_witness(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof(story.checkpoint(witnesses=("wit-a", "wit-b", "stranger"))))


@wrong("checkpoint")
def log_key_of_another(tale: ModuleType) -> Case:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    by_stranger = tale.sign_note(note.text, tale.ORIGIN, tale.key("stranger"))
    forged = Note(note.text, (*by_stranger.signatures, *note.signatures[1:]))
    return Case(story, story.proof(forged.to_bytes()))


def with_signature(note: Note, position: int, data: bytes) -> bytes:
    lines = list(note.signatures)
    lines[position] = NoteSignature(lines[position].signer, data)
    return Note(note.text, tuple(lines)).to_bytes()


@wrong("checkpoint signature")
def log_signature_is_bad(tale: ModuleType) -> Case:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    return Case(story, story.proof(with_signature(note, 0, bytes(64))))


@wrong("checkpoint signature")
def log_signature_is_missing(tale: ModuleType) -> Case:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    return Case(story, story.proof(Note(note.text, note.signatures[1:]).to_bytes()))


@wrong("witness quorum")
def too_few_witnesses(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof(story.checkpoint(witnesses=("wit-a",))))


@wrong("witness quorum")
def two_keys_of_one_witness_operator(tale: ModuleType) -> Case:
    story = tale.honest()
    base = tale.policy()
    second = replace(base.witnesses[1], operator="wit-a")
    third = replace(base.witnesses[1], key=tale.vkey("wit-c", 4))
    policy = replace(base, witnesses=(base.witnesses[0], second, third))
    return Case(story, options={"policy": policy})


@wrong("witness quorum")
def bad_line_beside_a_quorum(tale: ModuleType) -> Case:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    bad = note.signatures[2].data[:-1] + bytes([note.signatures[2].data[-1] ^ 1])
    policy = tale.policy(quorum=1)
    return Case(story, story.proof(with_signature(note, 2, bad)), {"policy": policy})


@wrong("witness quorum")
def status_checkpoint_without_quorum(tale: ModuleType) -> Case:
    story = tale.honest()
    seen = story.checkpoint(size=story.at["status"], witnesses=("wit-a",))
    return Case(story, story.proof(status_checkpoint=seen))


@wrong("inclusion")
def record_not_in_the_log(tale: ModuleType) -> Case:
    story, other = tale.honest(), tale.honest()
    proof = story.proof()
    other.tell_audit("acme", counts=Counts(20, 0, 1, 0), steps=21, name="milder")
    position = [r.index for r in proof.records].index(story.at["audit acme"])
    forged = replace(other.proof_of([other.at["milder acme"]]).records[0], index=story.at["audit acme"])
    records = (*proof.records[:position], forged, *proof.records[position + 1 :])
    return Case(story, replace(proof, records=records))


@wrong("inclusion")
def root_of_another_log(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, replace(story.proof(), checkpoint=story.checkpoint(root=bytes(32))))


# --- relevance ---


@wrong("relevance")
def record_of_a_kind_without_place(tale: ModuleType) -> Case:
    story = tale.honest()
    held = Held("state", tale.digest("last state"), "lab", "2030-01-31T00:00:00Z")
    story.add("held", held, "lab-audit")
    return Case(story, story.proof_and("held"))


@wrong("relevance")
def second_contract(tale: ModuleType) -> Case:
    story = tale.honest()
    story.add("contract 2", replace(story.statements[0], author="globex"), "owner")
    return Case(story, story.proof_and("contract 2"))


@wrong("relevance")
def second_genesis(tale: ModuleType) -> Case:
    story = tale.honest()
    story.tell_genesis(name="genesis 2", plan=tale.digest("plan 2"))
    return Case(story, story.proof_of([0, *(story.at[n] for n in ("genesis", "genesis 2", "attempt-1", "final"))]))


@wrong("relevance")
def genesis_missing(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof_but("genesis"))


@wrong("relevance")
def final_missing(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof_but("final"))


@wrong("relevance")
def step_nobody_resumes_from(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_step(1)
    story.tell_final()
    return Case(story, story.proof_and("step-1"))


@wrong("relevance")
def intent_on_another_run(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", target=tale.digest("another run"))
    story.tell_final()
    return Case(story, story.proof_and("intent acme"))


@wrong("relevance")
def nonce_of_an_intent_not_in_the_proof(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme")
    names = ("contract", "genesis", "attempt-1", "final", "nonce acme")
    return Case(story, story.proof_of(story.at[n] for n in names))


@wrong("relevance")
def audit_by_a_key_not_of_the_policy(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_audit("acme", sources=())
    return Case(story, options={"policy": tale.policy(without=("acme",))})


@wrong("relevance")
def property_by_a_key_not_of_the_policy(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_property("acme")
    return Case(story, options={"policy": tale.policy(without=("acme",))})


@wrong("relevance")
def two_statuses(tale: ModuleType) -> Case:
    story = tale.honest()
    story.tell_status()
    first = story.at["audit acme"] + 2
    return Case(story, story.proof_of([*(r.index for r in story.proof().records), first], sizes=(first,)))


@wrong("relevance")
def status_checkpoint_without_status(tale: ModuleType) -> Case:
    story = tale.honest()
    proof = story.proof_but("status", status_checkpoint=story.checkpoint(size=5))
    return Case(story, proof)


# --- signatures, roles, operators ---


def signed_wrong(name: str, **signers: dict[str, Any]) -> None:
    """Register a case in which one record of an honest run is signed by a wrong key."""

    def teller(tale: ModuleType) -> Case:
        story = tale.Story()
        story.tell_contract(**signers.get("contract", {}))
        story.tell_genesis(**signers.get("genesis", {}))
        story.tell_attempt(**signers.get("attempt", {}))
        story.tell_final(**signers.get("final", {}))
        story.tell_status(**signers.get("status", {}))
        return Case(story)

    teller.__name__ = name
    wrong("envelope signatures")(teller)


signed_wrong("contract_by_the_trainer", contract={"signer": "lab"})
signed_wrong("genesis_by_another_key_than_it_names", genesis={"signer": "stranger"})
signed_wrong("attempt_by_a_worker", attempt={"signer": "worker-1"})
signed_wrong("final_by_a_worker", final={"signer": "worker-1"})


@wrong("envelope signatures")
def run_key_not_of_the_policy(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis(signer="stranger", run_key=tale.key("stranger").public.hex())
    story.tell_attempt(signer="stranger")
    story.tell_final(signer="stranger")
    return Case(story)


@wrong("envelope signatures")
def final_with_a_second_signature(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    final_story = tale.honest()
    envelope = sign(
        encode_statement(replace(final_story.final, run=story.run)),
        [tale.key("lab"), tale.key("worker-1")],
    )
    story.add_envelope("final", envelope, replace(final_story.final, run=story.run))
    story.final = replace(final_story.final, run=story.run)
    return Case(story)


@wrong("envelope signatures")
def resumed_step_lacks_a_worker(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    workers = tuple(tale.key(n).public.hex() for n in ("worker-1", "worker-1b"))
    story.tell_attempt(worker_keys=workers, processes=2)
    step = story.tell_step(3, signers=("worker-1",))
    story.tell_attempt(number=2, step=3, resumed_from=step)
    story.tell_final()
    return Case(story)


def garbled(story: Any, proof: RunProof, name: str) -> RunProof:
    """Return the proof with one record's signature broken, over a log that holds it so."""
    index = story.at[name]
    record = next(r for r in proof.records if r.index == index)
    (signature,) = record.envelope.signatures
    bad = replace(signature, sig=bytes([signature.sig[0] ^ 1]) + signature.sig[1:])
    told = replace(record.envelope, signatures=(bad,))
    story.replace_entry(index, told)
    return story.proof_of([r.index for r in proof.records], sizes=proof.sizes)


for _name in ("contract", "genesis", "attempt-1", "final", "intent acme", "audit acme", "property acme"):

    def _teller(tale: ModuleType, name: str = _name) -> Case:
        story = tale.honest()
        # The status would see another root: it comes after.
        proof = story.proof_but("status", sizes=())
        return Case(story, garbled(story, proof, name))

    _teller.__name__ = f"bad_signature_on_{_name.replace('-', '_').replace(' ', '_')}"
    wrong("envelope signatures")(_teller)


@wrong("envelope signatures")
def bad_signature_on_status(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, garbled(story, story.proof(), "status"))


@wrong("envelope signatures")
def bad_signature_on_nonce(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme")
    return Case(story, garbled(story, story.proof_and("nonce acme"), "nonce acme"))


def ranged(tale: ModuleType, name: str, **limits: int) -> Any:
    base = tale.policy()
    keys = tuple(
        replace(entry, **limits) if entry.public == tale.key(name).public else entry
        for entry in base.keys
    )
    return replace(base, keys=keys)


@wrong("key range")
def author_key_not_yet_valid(tale: ModuleType) -> Case:
    return Case(tale.honest(), options={"policy": ranged(tale, "owner", from_index=1)})


@wrong("key range")
def run_key_not_yet_valid_for_genesis(tale: ModuleType) -> Case:
    return Case(tale.honest(), options={"policy": ranged(tale, "lab", from_index=2)})


@wrong("key range")
def run_key_no_longer_valid_for_the_final(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, options={"policy": ranged(tale, "lab", to_index=story.at["final"])})


@wrong("one key, one role")
def worker_key_is_the_run_key(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    story.tell_attempt(worker_keys=(tale.key("lab").public.hex(),))
    story.tell_final()
    return Case(story, options={"policy": tale.policy(without=("lab",))})


@wrong("one key, one role")
def worker_key_is_an_auditors(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    story.tell_attempt(worker_keys=(tale.key("acme").public.hex(),))
    story.tell_final()
    return Case(story)


@wrong("one key, one role")
def run_key_is_a_witness(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis(signer="wit-a", run_key=tale.key("wit-a").public.hex())
    story.tell_attempt(signer="wit-a")
    story.tell_final(signer="wit-a")
    return Case(story, options={"policy": tale.policy(without=("lab",))})


@wrong("operators")
def author_under_another_name(tale: ModuleType) -> Case:
    story = tale.Story()
    story.tell_contract(author="acme")
    story.tell_genesis()
    story.tell_attempt()
    story.tell_final()
    return Case(story)


@wrong("operators")
def trainer_under_another_name(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open(genesis={"trainer": "acme"})
    story.tell_final()
    return Case(story)


@wrong("operators")
def intent_under_another_name(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("lab-audit", auditor="acme")
    story.tell_final()
    return Case(story)


@wrong("operators")
def audit_under_another_name(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_audit("lab-audit", sources=(), auditor="acme")
    return Case(story)


@wrong("operators")
def status_under_another_name(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_status(monitor="acme")
    return Case(story)


# --- contract to final ---


@wrong("accepted")
def contract_not_listed(tale: ModuleType) -> Case:
    return Case(tale.honest(), options={"policy": tale.policy(contracts=("a" * 64,))})


@wrong("accepted")
def run_not_listed(tale: ModuleType) -> Case:
    return Case(tale.honest(), options={"policy": tale.policy(runs=("a" * 64,))})


@wrong("contract")
def genesis_of_another_contract(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open(genesis={"contract": tale.digest("another contract")})
    story.tell_final()
    indices = (story.at[n] for n in ("contract", "genesis", "attempt-1", "final"))
    return Case(story, story.proof_of(indices))


@wrong("numerics")
def numerics_class_not_taken(tale: ModuleType) -> Case:
    numerics = NumericsDemand(classes=("bf16",))
    return Case(tale.honest(), options={"policy": tale.policy(numerics=numerics)})


@wrong("numerics")
def tolerance_above_the_cap(tale: ModuleType) -> Case:
    numerics = NumericsDemand(caps=(("c", 3.99),))
    return Case(tale.honest(), options={"policy": tale.policy(numerics=numerics)})


def run_with_attempts(tale: ModuleType, *attempts: dict[str, Any], **final: Any) -> Any:
    story = tale.Story()
    story.tell_contract()
    story.tell_genesis()
    for number, changes in enumerate(attempts, start=1):
        told = {k: v for k, v in changes.items() if k != "steps"}
        if "resume" in told:
            told["resumed_from"] = story.records[told.pop("resume")]
        story.tell_attempt(**{"number": number, **told})
        for step in changes.get("steps", ()):
            story.tell_step(step, attempt=number)
    story.tell_final(**final)
    return story


@wrong("attempts")
def attempt_of_another_run(tale: ModuleType) -> Case:
    other = tale.digest("another run")
    story = run_with_attempts(tale, {"run": other, "resumed_from": other}, attempts=1)
    return Case(story, story.proof_and("attempt-1"))


@wrong("attempts")
def attempt_left_out(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, {}, {"number": 2})
    return Case(story, story.proof_but("attempt-2"))


@wrong("attempts")
def final_counts_too_many_attempts(tale: ModuleType) -> Case:
    return Case(run_with_attempts(tale, {}, attempts=2))


@wrong("attempts")
def attempt_number_skipped(tale: ModuleType) -> Case:
    return Case(run_with_attempts(tale, {}, {"number": 3}))


@wrong("attempts")
def attempt_resumes_from_a_record_not_shown(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, {"steps": [4]}, {"step": 4, "resume": "step-4"})
    return Case(story, story.proof_but("step-4"))


@wrong("attempts")
def attempt_claims_another_step(tale: ModuleType) -> Case:
    return Case(run_with_attempts(tale, {"steps": [4]}, {"step": 5, "resume": "step-4"}))


@wrong("attempts")
def attempt_resumes_from_another_run(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    step = story.tell_step(4, run=tale.digest("another run"))
    story.tell_attempt(number=2, step=4, resumed_from=step)
    story.tell_final()
    return Case(story)


@wrong("attempts")
def attempt_resumes_from_its_own_step(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, {}, {})
    step = story.tell_step(4, attempt=2)
    story.tell_attempt(number=3, step=4, resumed_from=step)
    story.tell_final(attempts=3, name="final")
    # The step's attempt is named by hash; take it out and its maker is no earlier attempt.
    return Case(story, None, {}) if False else resumed_from_a_later_attempt(tale)


def resumed_from_a_later_attempt(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    foreign = tale.digest("attempt of nobody")
    story.records["attempt-9"] = foreign
    step = story.tell_step(4, attempt=9, signers=("worker-1",))
    story.tell_attempt(number=2, step=4, resumed_from=step)
    story.tell_final()
    return Case(story)


@wrong("attempts")
def attempt_resumes_past_the_last_step(tale: ModuleType) -> Case:
    return Case(run_with_attempts(tale, {"steps": [1001]}, {"step": 1001, "resume": "step-1001"}))


@wrong("attempts")
def attempts_listed_though_too_many(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, *({} for _ in range(9)))
    return Case(story, story.proof_and(*(f"attempt-{n}" for n in range(1, 10))))


@wrong("order")
def genesis_before_its_contract(tale: ModuleType) -> Case:
    story = tale.Story()
    story.contract = tale.contract(story.steps)
    story.tell_genesis()
    story.tell_contract()
    story.tell_attempt()
    story.tell_final()
    return Case(story)


@wrong("order")
def attempt_after_the_final(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final(attempts=2)
    story.tell_attempt(number=2)
    return Case(story)


@wrong("order")
def resumed_step_after_its_attempt(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    whole = tale.Story()
    whole.open()
    step = whole.tell_step(4)
    story.tell_attempt(number=2, step=4, resumed_from=step)
    story.tell_step(4)
    story.tell_final()
    return Case(story)


@wrong("order")
def intent_after_the_final(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final()
    story.tell_intent("acme")
    return Case(story, story.proof_and("intent acme"))


@wrong("order")
def nonce_before_the_final(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_nonce("acme")
    story.tell_final()
    return Case(story, story.proof_and("nonce acme"))


def told_before_the_final(name: str) -> Teller:
    def teller(tale: ModuleType) -> Case:
        whole = tale.honest()
        story = tale.Story()
        story.open()
        story.tell_intent("acme")
        story.final, story.records["final"] = whole.final, whole.records["final"]
        told = {"audit acme": story.tell_audit, "property acme": story.tell_property}
        told[name]("acme")
        story.tell_final()
        assert story.records["final"] == whole.records["final"]
        return Case(story)

    return teller


for _name in ("audit acme", "property acme"):
    _told = told_before_the_final(_name)
    _told.__name__ = f"{_name.replace(' ', '_')}_before_the_final"
    wrong("order")(_told)


@wrong("final")
def final_of_another_run(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final(run=tale.digest("another run"))
    return Case(story, story.proof_of(range(4)))


@wrong("final")
def final_of_fewer_steps(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_final(steps=999, line=replace(tale.honest().final.line, count=1000))
    return Case(story)


@wrong("one final")
def second_final_in_the_proof(tale: ModuleType) -> Case:
    story = tale.honest()
    story.tell_final(name="final 2", state_root=tale.digest("another state"))
    story.records["final"] = story.records["final 2"]
    return Case(story, story.proof_and("final 2"))


@wrong("one final")
def second_final_in_the_status(tale: ModuleType) -> Case:
    story = tale.honest()
    story.tell_final(name="final 2", state_root=tale.digest("another state"))
    story.tell_status()
    names = ("contract", "genesis", "attempt-1", "intent acme", "final", "audit acme", "property acme")
    indices = [story.at[n] for n in (*names, "status")]
    return Case(story, story.proof_of(indices, sizes=(story.at["status"],)))


# --- conflicts ---


@wrong("conflict")
def second_final_shown_by_anyone(tale: ModuleType) -> Case:
    story = tale.honest()
    other = sign(
        encode_statement(replace(story.final, state_root=tale.digest("another state"))),
        [tale.key("lab")],
    )
    story.tell_conflict(story.entry(story.at["final"]), other, signer="stranger")
    story.tell_status()
    return Case(story)


@wrong("conflict")
def second_step_shown_by_anyone(tale: ModuleType) -> Case:
    story = tale.honest()
    told = tale.honest()
    told.tell_step(5, loss="0x1.0000000000000p-3")
    other = tale.honest()
    other.tell_step(5)
    first, second = (s.entry(s.at["step-5"]) for s in (told, other))
    story.tell_conflict(first, second, signer="stranger")
    story.tell_status()
    return Case(story)


@wrong("conflict")
def second_segment_shown_by_anyone(tale: ModuleType) -> Case:
    story = tale.honest()
    segment = Segment(
        state_root=tale.digest("s"),
        run=story.run,
        attempt=story.records["attempt-1"],
        first=1,
        last=10,
        rows_root=tale.digest("rows"),
        seen=None,
    )
    pair = (segment, replace(segment, rows_root=tale.digest("other rows")))
    first, second = (sign(encode_statement(s), [tale.key("worker-1")]) for s in pair)
    story.tell_conflict(first, second, signer="stranger")
    story.tell_status()
    return Case(story)


@wrong("conflict")
def conflict_by_a_named_reporter(tale: ModuleType) -> Case:
    story = tale.honest()
    first, second = (story.entry(story.at[n]) for n in ("genesis", "attempt-1"))
    story.tell_conflict(first, second, signer="court")
    story.tell_status()
    return Case(story)


@wrong("conflict")
def step_conflict_where_attempts_are_not_listed(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, *({} for _ in range(9)))
    told = [run_with_attempts(tale, *({} for _ in range(9))) for _ in range(2)]
    told[0].tell_step(5, attempt=9)
    told[1].tell_step(5, attempt=9, loss="0x1.0000000000000p-3")
    first, second = (s.entry(s.at["step-5"]) for s in told)
    story.tell_conflict(first, second, signer="stranger")
    story.tell_status()
    return Case(story)


# --- audits ---


def run_with_audit(tale: ModuleType, *, who: str = "acme", **changes: Any) -> Any:
    story = tale.Story()
    story.open()
    story.tell_intent(who)
    story.tell_final()
    story.tell_audit(who, **changes)
    return story


@wrong("audit")
def audit_of_another_run(tale: ModuleType) -> Case:
    story = run_with_audit(tale, run=tale.digest("another run"))
    return Case(story, story.proof_and("audit acme"))


@wrong("audit")
def audit_of_another_final(tale: ModuleType) -> Case:
    return Case(run_with_audit(tale, final=tale.digest("another final")))


@wrong("audit")
def audit_refutes_a_step(tale: ModuleType) -> Case:
    story = run_with_audit(tale)
    steps = story.statements[story.at["audit acme"]].steps
    return Case(run_with_audit(tale, counts=Counts(steps - 1, 1, 0, 0)))


@wrong("audit")
def audit_by_the_trainer_refutes_a_step(tale: ModuleType) -> Case:
    steps = run_with_audit(tale).statements[5].steps
    story = run_with_audit(tale, who="lab-audit")
    steps = story.statements[story.at["audit lab-audit"]].steps
    return Case(run_with_audit(tale, who="lab-audit", counts=Counts(steps - 1, 1, 0, 0)))


@wrong("audit")
def preliminary_audit_refutes_a_step(tale: ModuleType) -> Case:
    steps = run_with_audit(tale).statements[5].steps
    counts = Counts(steps - 1, 1, 0, 0)
    return Case(run_with_audit(tale, method="preliminary", counts=counts))


for _field in ("init", "export", "line", "drift"):

    def _failed(tale: ModuleType, name: str = _field) -> Case:
        return Case(run_with_audit(tale, **{name: "fail"}))

    _failed.__name__ = f"audit_refutes_{_field}"
    wrong("audit")(_failed)


@wrong("sources")
def source_not_in_the_proof(tale: ModuleType) -> Case:
    story = run_with_audit(tale)
    return Case(story, story.proof_but("intent acme"))


@wrong("sources")
def source_of_another_run_replayed(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", target=tale.digest("another run"))
    story.tell_final()
    story.tell_audit("acme")
    names = ("contract", "genesis", "attempt-1", "final", "audit acme")
    return Case(story, story.proof_of(story.at[n] for n in names))


@wrong("sources")
def nonce_not_the_one_committed(tale: ModuleType) -> Case:
    story = run_with_audit(tale)
    audit = story.statements[story.at["audit acme"]]
    sources = (replace(audit.sources[0], nonce="00" * 32),)
    other = tale.Story()
    other.open()
    other.tell_intent("acme")
    other.tell_final()
    other.add("audit acme", replace(audit, sources=sources), "acme")
    return Case(other)


@wrong("sources")
def logged_nonce_not_the_one_committed(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_nonce("acme", nonce="00" * 32)
    return Case(story, story.proof_and("nonce acme"))


@wrong("sources")
def intent_given_to_another_key(tale: ModuleType) -> Case:
    story = run_with_audit(tale)
    audit = story.statements[story.at["audit acme"]]
    sources = (replace(audit.sources[0], keyid=tale.key("globex").keyid),)
    other = tale.Story()
    other.open()
    other.tell_intent("acme")
    other.tell_final()
    other.add("audit acme", replace(audit, sources=sources), "acme")
    return Case(other)


@wrong("sources")
def second_intent_of_a_key(tale: ModuleType) -> Case:
    story = tale.Story()
    story.open()
    story.tell_intent("acme", name="first intent", commitment=tale.digest("another nonce"))
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    return Case(story)


@wrong("sample")
def audit_counts_fewer_steps_than_its_sample(tale: ModuleType) -> Case:
    return Case(run_with_audit(tale, steps=20, counts=Counts(20, 0, 0, 0)))


@wrong("sample")
def audit_counts_more_steps_than_its_sample(tale: ModuleType) -> Case:
    return Case(run_with_audit(tale, steps=22, counts=Counts(22, 0, 0, 0)))


@wrong("sample")
def audit_of_more_chosen_steps_than_there_are(tale: ModuleType) -> Case:
    counts = Counts(1000, 0, 0, 1)
    story = run_with_audit(tale, sources=(), sample="chosen", steps=1000, counts=counts)
    return Case(story)


@wrong("sample")
def sample_of_nothing(tale: ModuleType) -> Case:
    story = run_with_audit(tale)
    audit = replace(story.statements[story.at["audit acme"]], k=0)
    other = tale.Story()
    other.open()
    other.tell_intent("acme")
    other.tell_final()
    other.add("audit acme", audit, "acme")
    return Case(other)


@wrong("sample")
def sample_too_large_to_draw(tale: ModuleType) -> Case:
    story = tale.Story(steps=2**40)
    story.open()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    audit = replace(story.statements[story.at["audit acme"]], k=2**30)
    other = tale.Story(steps=2**40)
    other.open()
    other.tell_intent("acme")
    other.tell_final()
    other.add("audit acme", audit, "acme")
    return Case(other)


# --- properties ---


def property_case(name: str, **changes: Any) -> None:
    def teller(tale: ModuleType) -> Case:
        story = tale.Story()
        story.open()
        story.tell_final()
        story.tell_property("acme", **changes)
        return Case(story, story.proof_and("property acme"))

    teller.__name__ = name
    wrong("property")(teller)


property_case("property_of_another_run", run="a" * 64)
property_case("property_of_another_final", final="a" * 64)
property_case("property_of_another_state", state_root="a" * 64)
property_case("property_the_contract_does_not_promise", name="loss")
property_case("property_by_another_program", program="a" * 64)
property_case("property_on_other_data", data_root="a" * 64)
property_case("property_at_a_lower_threshold", threshold=Threshold(8, 10))
property_case("property_at_a_smaller_margin", margin=0)
property_case("property_on_part_of_the_holdout", correct=95, total=100)
property_case("property_met_below_its_threshold", correct=269)
property_case("property_not_met_above_its_threshold", correct=290, verdict="not met")
property_case("property_undecided_far_away", correct=290, verdict="undecided")


def test_property_met_needs_the_margin_exactly(tale: ModuleType) -> None:
    # 0.9 * 297 + 3 = 270.3
    for correct, verdict in ((271, "met"), (270, "undecided"), (265, "undecided"), (264, "not met")):
        story = tale.Story()
        story.open()
        story.tell_final()
        story.tell_property("acme", correct=correct, verdict=verdict)
        states = {"met": "validated", "undecided": "undecided", "not met": "not met"}
        assert story.verify().properties[0].state == states[verdict]


# --- status ---


def status_case(check: str, name: str, change: Callable[[ModuleType, Any], dict[str, Any]]) -> None:
    def teller(tale: ModuleType) -> Case:
        story = tale.honest()
        story.forget("status")
        story.tell_status(**change(tale, story))
        size = story.statements[story.at["status"]].log.size
        indices = [story.at[n] for n in story.told()]
        return Case(story, story.proof_of(indices, sizes=(size,) if size < len(story.leaves) else ()))

    teller.__name__ = name
    wrong(check)(teller)


def head_of(story: Any, **changes: Any) -> dict[str, Any]:
    size = len(story.leaves)
    return {"log": replace(LogHead("log.example/runs", size, story.root().hex()), **changes)}


def entries(story: Any, **changes: Any) -> dict[str, Any]:
    (own,) = story._runs()
    return {"runs": (replace(own, **changes),)}


status_case("status", "status_of_another_contract", lambda t, s: {"contract": "a" * 64})
status_case("status", "status_of_another_log", lambda t, s: head_of(s, origin="other.example"))
status_case("status", "status_of_another_root", lambda t, s: head_of(s, root="a" * 64))
status_case("status", "status_that_saw_itself", lambda t, s: head_of(s, size=len(s.leaves) + 1))
status_case(
    "status",
    "status_older_than_a_record",
    lambda t, s: head_of(
        s, size=s.at["property acme"], root=s.root(s.at["property acme"]).hex()
    )
    | entries(s, properties=()),
)
status_case("status", "status_without_the_run", lambda t, s: {"runs": ()})
status_case("status", "status_with_another_genesis", lambda t, s: entries(s, genesis=0))
status_case("status", "status_that_misses_the_audit", lambda t, s: entries(s, audits=()))
status_case("status", "status_that_misses_the_attempt", lambda t, s: entries(s, attempts=()))
status_case("status", "status_that_misses_the_intent", lambda t, s: entries(s, intents=()))
status_case("one final", "status_without_a_final", lambda t, s: entries(s, finals=()))
status_case("one final", "status_with_another_final", lambda t, s: entries(s, finals=(4, 16)))
for _list in ("attempts", "intents", "audits", "properties", "conflicts"):
    status_case(
        "omissions",
        f"status_lists_more_{_list}",
        lambda t, s, name=_list: entries(
            s, **{name: (*getattr(next(iter(s._runs())), name), len(s.leaves) - 1)}
        ),
    )
status_case("omissions", "status_lists_an_intent_on_the_contract", lambda t, s: {"contract_intents": (4,)})


@wrong("status")
def status_root_not_shown(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof_of((r.index for r in story.proof().records), sizes=()))


@wrong("status")
def status_checkpoint_at_another_size(tale: ModuleType) -> Case:
    story = tale.honest()
    return Case(story, story.proof(status_checkpoint=story.checkpoint(size=5), sizes=(5,)))


@wrong("omissions")
def refuting_audit_left_out(tale: ModuleType) -> Case:
    story = tale.honest()
    story.forget("status")
    story.tell_intent("globex", name="late")
    story.forget("late globex")
    story.tell_audit("globex", sources=(), init="fail")
    story.tell_status()
    return Case(story, story.proof_but("audit globex"))


@wrong("omissions")
def attempts_not_as_many_as_counted(tale: ModuleType) -> Case:
    story = run_with_attempts(tale, *({} for _ in range(9)), attempts=10)
    story.tell_status()
    return Case(story)


# --- all of them ---


@pytest.mark.parametrize("name", CASES)
def test_run_told_wrong_is_refused_by_the_check_of_its_name(tale: ModuleType, name: str) -> None:
    check, teller = CASES[name]
    case = teller(tale)
    with pytest.raises(RefusedError) as caught:
        case.story.verify(case.proof, **case.options)
    assert caught.value.check == check, str(caught.value)
    assert str(caught.value).startswith(f"{check}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_every_check_has_a_case() -> None:
    elsewhere = {"format", "artifact", "history"}
    assert {check for check, _ in CASES.values()} | elsewhere == set(CHECKS)


def test_client_loads_neither_jax_nor_anything_heavy() -> None:
    heavy = "jax jaxlib numpy click sqlite3 ray msgspec starlette web3 blake3 asyncio http"
    code = (
        "import sys, attest.client, attest.policy\n"
        f"print(sorted(set({heavy.split()!r}) & set(sys.modules)),"
        " [m for m in sys.modules if m.startswith(('attest.log', 'anh_jax', 'launch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
