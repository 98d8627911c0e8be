"""Records in a log that colludes: being logged vouches for nobody's signature."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import cosign
from attest.envelope import Envelope
from attest.errors import EquivocationError, RefusedError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, Role, VerifierKey
from attest.memory import Memory
from attest.merkle import leaf_hash, node_hash, tree_root
from attest.proof import ProofRecord, RunProof
from attest.record_proof import verify_record
from attest.tlog_proof import TlogProof
from attest.trust import KeyEntry, LogEntry, Policy, WitnessEntry

ORIGIN = "log.example/colluding"


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    path = Path(__file__).resolve().parent / "log" / "lab.py"
    spec = importlib.util.spec_from_file_location("tests_record_lab", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def policy(lab: ModuleType, *, run: str = "") -> Policy:
    keys = (KeyEntry(Role.AUTHOR, lab.key("owner").public, "owner"),)
    keys += (KeyEntry(Role.AUDITOR, lab.key("acme").public, "acme", from_index=1),)
    keys += (KeyEntry(Role.RUN, lab.key(run).public, "lab"),) if run else ()
    witness = VerifierKey("witness.example", ALG_COSIGNATURE, lab.key("witness").public)
    return Policy(
        log=LogEntry(ORIGIN, VerifierKey(ORIGIN, ALG_ED25519, lab.key("log").public), "logco"),
        witnesses=(WitnessEntry(witness, "watch"),),
        quorum=1,
        keys=keys,
    )


def logged(lab: ModuleType, envelope: Envelope, index: int = 1, *, sibling: bytes = b"s") -> bytes:
    """Put an envelope into a log of two, whatever it says."""
    leaf, other = envelope.to_bytes(), leaf_hash(sibling)
    pair = (leaf_hash(leaf), other) if index == 0 else (other, leaf_hash(leaf))
    text = Checkpoint(ORIGIN, 2, node_hash(*pair))
    note = sign_checkpoint(text, lab.key("log"))
    line = cosign(note.text, "witness.example", lab.key("witness"), 1_800_000_000)
    return TlogProof(index, (other,), note.signed_also(line).to_bytes(), leaf).to_bytes()


def proof_of(*envelopes: Envelope) -> RunProof:
    records = tuple(ProofRecord.read(i, e) for i, e in enumerate(envelopes))
    return RunProof(b"", None, records, (), ())


def test_a_signature_that_does_not_hold_is_refused(lab: ModuleType) -> None:
    made = lab.Lab()
    good, other = made.final(4), lab.Lab(name="other").final(4)
    bad = Envelope(good.payload, (replace(good.signatures[0], sig=other.signatures[0].sig),))
    assert verify_record(logged(lab, good), policy(lab, run="lab")).exit_code == 0
    with pytest.raises(RefusedError, match="envelope signatures"):
        verify_record(logged(lab, bad), policy(lab, run="lab"))


def test_a_second_signature_is_refused(lab: ModuleType) -> None:
    good = lab.Lab().final(4)
    pair = sorted(
        (*good.signatures, replace(good.signatures[0], keyid="f" * 64)), key=lambda s: s.keyid
    )
    with pytest.raises(RefusedError):
        verify_record(logged(lab, Envelope(good.payload, tuple(pair))), policy(lab, run="lab"))


def test_a_key_of_another_role_vouches_for_nothing(lab: ModuleType) -> None:
    made = lab.Lab()
    for signer in ("owner", "acme"):
        with pytest.raises(RefusedError, match="no run key"):
            verify_record(logged(lab, made.final(4, signer=signer)), policy(lab, run="lab"))


def test_a_key_vouches_in_its_range_of_the_log_alone(lab: ModuleType) -> None:
    made = lab.Lab()
    audit = made.audit("acme", made.final(4))
    assert verify_record(logged(lab, audit, 1), policy(lab)).signed.startswith("acme")
    with pytest.raises(RefusedError, match="key range"):
        verify_record(logged(lab, audit, 0), policy(lab))


def test_another_runs_key_does_not_vouch_for_a_final(lab: ModuleType) -> None:
    made, other = lab.Lab(), lab.Lab(name="other")
    stolen = made.final(4, signer="other")
    with pytest.raises(RefusedError, match="envelope signatures"):
        verify_record(logged(lab, stolen), policy(lab), run=proof_of(*other.opening()))
    own = made.final(4)
    assert (
        verify_record(logged(lab, own), policy(lab), run=proof_of(*made.opening())).exit_code == 0
    )


def test_a_genesis_that_its_own_key_did_not_sign_is_refused(lab: ModuleType) -> None:
    genesis = lab.Lab().genesis
    forged = Envelope(genesis.payload, lab.Lab(name="other").genesis.signatures)
    with pytest.raises(RefusedError, match="envelope signatures"):
        verify_record(logged(lab, forged), policy(lab))


def test_workers_vouch_for_steps_of_their_attempt_alone(lab: ModuleType) -> None:
    made = lab.Lab(workers=2)
    opening = made.opening()
    (step,) = made.train(1, 1, 1)
    assert verify_record(logged(lab, step), policy(lab), run=proof_of(*opening)).exit_code == 0
    one = Envelope(step.payload, step.signatures[:1])
    with pytest.raises(RefusedError, match="lacks the signature"):
        verify_record(logged(lab, one), policy(lab), run=proof_of(*opening))
    second = made.attempt(2, after=(1, 1))
    late = made.step(2, 2, made.worker_names(1))
    for run in (proof_of(*opening), proof_of(*opening, second)):
        with pytest.raises(RefusedError, match="envelope signatures"):
            verify_record(logged(lab, late), policy(lab), run=run)
    right = made.step(2, 3)
    assert verify_record(logged(lab, right), policy(lab), run=proof_of(second)).exit_code == 0


def test_an_attempt_vouches_for_steps_of_its_own_run_alone(lab: ModuleType) -> None:
    made = lab.Lab()
    run = proof_of(*made.opening())
    made.train(1, 1, 1)
    moved = made.step(1, 2, run=lab.Lab(name="other").run)
    with pytest.raises(RefusedError, match="two runs"):
        verify_record(logged(lab, moved), policy(lab), run=run)


def test_a_segment_is_signed_by_the_first_worker(lab: ModuleType) -> None:
    made = lab.Lab(workers=2)
    run = proof_of(*made.opening())
    segment = made.segment(1, 1, 4)
    assert verify_record(logged(lab, segment), policy(lab), run=run).exit_code == 0
    second = made.segment(1, 1, 4, made.worker_names(1)[1])
    with pytest.raises(RefusedError, match="envelope signatures"):
        verify_record(logged(lab, second), policy(lab), run=run)


def test_two_heads_of_one_size_are_evidence_whoever_cosigned(
    lab: ModuleType, tmp_path: Path
) -> None:
    memory, trusted = Memory(tmp_path), policy(lab, run="lab")
    final = lab.Lab().final(4)
    verify_record(logged(lab, final), trusted, history=memory)
    one = TlogProof.from_bytes(logged(lab, final, sibling=b"another"))
    alone = b"".join(one.note.splitlines(keepends=True)[:-1])
    for note in (one.note, alone):
        with pytest.raises(EquivocationError):
            verify_record(replace(one, note=note).to_bytes(), trusted, history=memory)


def test_the_lab_of_these_tests_logs_what_it_says(lab: ModuleType) -> None:
    envelope = lab.Lab().final(4)
    proof = TlogProof.from_bytes(logged(lab, envelope))
    assert proof.verify(envelope.to_bytes()).root == tree_root(
        [leaf_hash(b"s"), leaf_hash(envelope.to_bytes())]
    )
