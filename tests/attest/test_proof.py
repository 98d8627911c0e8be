"""run.proof as a file: one spelling, small for any number of steps, put together from a log."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from attest import canonical
from attest.assembly import assemble
from attest.errors import AttestError, FormatError, InputError
from attest.merkle import verify_inclusion
from attest.multiproof import fold
from attest.proof import MAX_PROOF_BYTES, encode_proof, parse_proof
from attest.statements import Attempt, Audit, Final, Status, Step


def edited(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_proof_comes_back_from_its_bytes(tale: ModuleType) -> None:
    data = tale.honest().file()
    assert encode_proof(parse_proof(data)) == data


def test_cosignatures_have_one_order_whatever_the_log_wrote(tale: ModuleType) -> None:
    story = tale.honest()
    data = encode_proof(story.proof(story.checkpoint(witnesses=("wit-b", "wit-a"), time=5)))
    lines = json.loads(data)["checkpoint"]["signatures"]
    assert [line.split()[0] for line in lines] == [
        tale.ORIGIN,
        "wit-a.example",
        "wit-b.example",
    ]
    swapped = edited(data, lambda v: v["checkpoint"]["signatures"].reverse())
    with pytest.raises(FormatError, match="out of order"):
        parse_proof(swapped)


FORMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown field": lambda v: v.update(extra=1),
    "missing field": lambda v: v.pop("sizes"),
    "unknown record field": lambda v: v["records"][0].update(path=[]),
    "missing record field": lambda v: v["records"][0].pop("signatures"),
    "unknown signature field": lambda v: v["records"][0]["signatures"][0].update(cert=""),
    "unknown checkpoint field": lambda v: v["checkpoint"].update(extra=""),
    "another version": lambda v: v.update(version=2),
    "version true": lambda v: v.update(version=True),
    "index as text": lambda v: v["records"][0].update(index="0"),
    "index true": lambda v: v["records"][1].update(index=True),
    "negative index": lambda v: v["records"][0].update(index=-1),
    "index out of order": lambda v: v["records"].reverse(),
    "record twice": lambda v: v["records"].insert(0, v["records"][0]),
    "record twice at two indices": lambda v: v["records"].append(
        {**v["records"][0], "index": v["records"][-1]["index"] + 1}
    ),
    "records no list": lambda v: v.update(records={}),
    "record no object": lambda v: v["records"].append(3),
    "no signature": lambda v: v["records"][0].update(signatures=[]),
    "signature twice": lambda v: v["records"][0]["signatures"].append(
        v["records"][0]["signatures"][0]
    ),
    "node no text": lambda v: v["nodes"].append(None),
    "node no base64": lambda v: v["nodes"].append("!"),
    "node base64 with slack bits": lambda v: v["nodes"].append("B" * 43 + "="),
    "size true": lambda v: v["sizes"].append(True),
    "size twice": lambda v: v["sizes"].append(v["sizes"][-1]),
    "checkpoint as text": lambda v: v.update(checkpoint=""),
    "status checkpoint as text": lambda v: v.update(statusCheckpoint=""),
    "blank line in the text": lambda v: v["checkpoint"].update(text="a\n\nb\n"),
    "text without its end": lambda v: v["checkpoint"].update(text="a\n1\nb"),
    "newline in a signature": lambda v: v["checkpoint"]["signatures"].append("a b\n"),
    "statement no object": lambda v: v["records"][0].update(statement="x"),
    "statement of an unknown kind": lambda v: v["records"][0]["statement"].update(
        predicateType="https://example.org/other"
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_other_form_is_refused(tale: ModuleType, name: str) -> None:
    data = edited(tale.honest().file(), FORMS[name])
    with pytest.raises(FormatError):
        parse_proof(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d + b"\n",
        lambda d: b" " + d,
        lambda d: d[:-1],
        lambda d: d.replace(b":", b": ", 1),
        lambda d: d.replace(b'"version":1', b'"version":1.0'),
        lambda d: d.replace(b'"version":1', b'"version":1,"version":1'),
        lambda d: d.replace(b"lab", b"\\u006cab", 1),
        lambda d: b"",
        lambda d: b"null",
        lambda d: b"[" * 100_000,
        lambda d: b" " * (MAX_PROOF_BYTES + 1),
    ],
)
def test_every_other_spelling_is_refused(tale: ModuleType, change) -> None:
    with pytest.raises(FormatError):
        parse_proof(change(tale.honest().file()))


@pytest.mark.parametrize("steps", [10, 1_000, 100_000])
def test_proof_is_small_for_any_number_of_steps(tale: ModuleType, steps: int) -> None:
    story = tale.honest(steps=steps, k=min(steps, 459), filler=steps)
    data = story.file()
    assert len(data) <= 16 * 1024
    assert story.verify(parse_proof(data)).steps == steps


def test_records_carry_their_rfc6962_paths(tale: ModuleType) -> None:
    story = tale.honest()
    proof = story.proof()
    size = len(story.leaves)
    folded = fold(size, {r.index: r.leaf for r in proof.records}, proof.sizes, proof.nodes)
    for record in proof.records:
        assert record.envelope.to_bytes() == story.leaves[record.index]
        path = folded.path(record.index, size)
        assert list(path) == story.inclusion(record.index, size)
        verify_inclusion(record.index, size, record.leaf, path, story.root())


# --- assembly ---


def test_proof_holds_the_run_and_nothing_of_another(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    first = story.run
    story.tell_genesis(name="other genesis", plan=tale.digest("other plan"))
    story.tell_intent("acme")
    story.tell_intent("globex", target=story.records["other genesis"], name="other intent")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_status()
    assert story.run == first
    indices = [record.index for record in story.proof().records]
    assert indices == [
        story.at[name]
        for name in ("contract", "genesis", "attempt-1", "intent acme", "final", "audit acme")
    ] + [story.at["status"]]


def test_newest_status_that_saw_all_records_is_taken(tale: ModuleType) -> None:
    story = tale.honest()
    first = story.at["status"]
    story.tell_status()
    (taken,) = story.proof().of_kind(Status)
    assert taken.index == story.at["status"] > first
    story.tell_property("globex")
    assert story.proof().of_kind(Status) == ()


def test_resumed_step_comes_with_its_attempt(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    step = story.tell_step(7)
    story.tell_attempt(number=2, step=7, resumed_from=step)
    story.tell_final()
    (record,) = story.proof().of_kind(Step)
    assert record.hash == step


def test_many_attempts_are_counted_and_not_listed(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    for number in range(2, 10):
        story.tell_attempt(number=number)
    story.tell_final()
    assert story.proof().of_kind(Attempt) == ()
    assert story.final.attempts == 9


def test_run_without_its_final_record_cannot_be_proven(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    with pytest.raises(InputError, match="final record"):
        story.proof()
    with pytest.raises(InputError, match="genesis"):
        assemble(story, "0" * 64, story.checkpoint())
    story.tell_final()
    early = story.checkpoint(size=story.at["final"])
    with pytest.raises(InputError, match="final record"):
        story.proof(early)


def test_audits_logged_after_the_checkpoint_are_not_in_the_proof(tale: ModuleType) -> None:
    story = tale.honest()
    early = story.checkpoint(size=story.at["audit acme"])
    assert story.proof(early).of_kind(Audit) == ()
    assert len(story.proof(early).of_kind(Final)) == 1


def test_deep_json_inside_a_statement_is_refused_by_name(tale: ModuleType) -> None:
    nested: Any = 1
    for _ in range(17):
        nested = [nested]
    data = edited(tale.honest().file(), lambda v: v["records"][0].update(statement=nested))
    with pytest.raises(AttestError) as caught:
        parse_proof(data)
    assert isinstance(caught.value, FormatError)


def test_proof_is_canonical_json(tale: ModuleType) -> None:
    data = tale.honest().file()
    assert canonical.encode(canonical.decode(data, max_bytes=len(data))) == data
