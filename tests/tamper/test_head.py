"""The checkpoint: signed by the policy's log, cosigned by its witnesses, over these records."""

from dataclasses import replace
from types import ModuleType

import pytest

from attest.cosignature import cosign
from attest.equivocation import check_evidence
from attest.errors import EquivocationError, RefusedError
from attest.merkle import EMPTY_ROOT
from attest.note import Note, NoteSignature, sign_note
from attest.statements import Counts


def with_signature(note: Note, position: int, data: bytes) -> bytes:
    lines = list(note.signatures)
    lines[position] = NoteSignature(lines[position].signer, data)
    return Note(note.text, tuple(lines)).to_bytes()


def test_line_by_an_unknown_witness_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    checkpoint = story.checkpoint(witnesses=("wit-a", "wit-b", "stranger"))
    refused("checkpoint", story, story.proof(checkpoint))


def test_checkpoint_by_another_key_of_the_logs_name_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    by_stranger = sign_note(note.text, tale.ORIGIN, tale.key("stranger"))
    forged = Note(note.text, (*by_stranger.signatures, *note.signatures[1:]))
    refused("checkpoint", story, story.proof(forged.to_bytes()))


def test_checkpoint_of_another_origin_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    text = note.text.replace(tale.ORIGIN, "log.example/other", 1)
    moved = sign_note(text, tale.ORIGIN, tale.key("log"))
    for i, name in enumerate(("wit-a", "wit-b")):
        moved = moved.signed_also(cosign(text, f"{name}.example", tale.key(name), 9 + i))
    refused("checkpoint", story, story.proof(moved.to_bytes()))


def test_a_log_and_a_witness_that_the_policy_does_not_name_are_told_apart(
    tale: ModuleType,
) -> None:
    story, base, key = tale.honest(), tale.policy(), tale.vkey("log-b")
    other = replace(base, log=replace(base.log, origin=key.name, key=key))
    with pytest.raises(RefusedError, match="checkpoint: the policy does not name this log"):
        story.verify(policy=other)
    stranger = story.checkpoint(witnesses=("wit-a", "wit-b", "stranger"))
    with pytest.raises(RefusedError, match=r"^checkpoint: note has a line by stranger"):
        story.verify(story.proof(stranger))


def test_bad_log_signature_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    refused("checkpoint signature", story, story.proof(with_signature(note, 0, bytes(64))))


def test_checkpoint_without_the_logs_signature_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    unsigned = Note(note.text, note.signatures[1:]).to_bytes()
    refused("checkpoint signature", story, story.proof(unsigned))


def test_too_few_witnesses_are_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    refused("witness quorum", story, story.proof(story.checkpoint(witnesses=("wit-a",))))


def test_two_keys_of_one_witness_operator_count_once(tale: ModuleType, refused) -> None:
    base = tale.policy()
    second = replace(base.witnesses[1], operator="wit-a")
    third = replace(base.witnesses[1], key=tale.vkey("wit-c", 4))
    policy = replace(base, witnesses=(base.witnesses[0], second, third))
    refused("witness quorum", tale.honest(), policy=policy)


def test_bad_line_by_a_named_witness_is_refused_beside_a_quorum(tale: ModuleType, refused) -> None:
    story = tale.honest()
    note = Note.from_bytes(story.checkpoint())
    data = note.signatures[2].data
    bad = with_signature(note, 2, data[:-1] + bytes([data[-1] ^ 1]))
    refused("witness quorum", story, story.proof(bad), policy=tale.policy(quorum=1))


def test_status_checkpoint_without_quorum_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    seen = story.checkpoint(size=story.at["status"], witnesses=("wit-a",))
    refused("witness quorum", story, story.proof(status_checkpoint=seen))


def test_status_checkpoint_of_another_tree_is_evidence_against_the_log(tale: ModuleType) -> None:
    story = tale.honest()
    other = story.checkpoint(size=story.at["status"], root=bytes(32))
    with pytest.raises(EquivocationError) as caught:
        story.verify(story.proof(status_checkpoint=other))
    assert caught.value.exit_code == 3
    first, second = check_evidence(caught.value.evidence, tale.vkey("log"))
    assert (first.size, second.size) == (story.at["status"], len(story.leaves))


def test_record_that_is_not_in_the_log_is_refused(tale: ModuleType, refused) -> None:
    story, other = tale.honest(), tale.honest()
    other.tell_audit("acme", name="milder", counts=Counts(20, 0, 1, 0))
    milder = other.proof_of([other.at["milder acme"]]).records[0]
    index = story.at["audit acme"]
    proof = story.proof()
    records = tuple(replace(milder, index=index) if r.index == index else r for r in proof.records)
    refused("inclusion", story, replace(proof, records=records))


def test_root_of_another_tree_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    refused("inclusion", story, replace(story.proof(), checkpoint=story.checkpoint(root=bytes(32))))


def test_checkpoint_of_an_empty_log_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    empty = story.checkpoint(size=0, root=EMPTY_ROOT)
    refused("inclusion", story, replace(story.proof(), checkpoint=empty))


@pytest.mark.parametrize("spare", [0, 1])
def test_missing_or_spare_node_is_refused(tale: ModuleType, refused, spare: int) -> None:
    story = tale.honest()
    proof = story.proof()
    nodes = (*proof.nodes, bytes(32)) if spare else proof.nodes[:-1]
    refused("inclusion", story, replace(proof, nodes=nodes))
