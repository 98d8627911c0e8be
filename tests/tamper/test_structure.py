"""Provers who choose what to show, and signers who sign anything: no way up, no crash."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import canonical
from attest.checkpoint import Checkpoint
from attest.envelope import Envelope, sign
from attest.errors import AttestError, FormatError, RefusedError
from attest.level import Level
from attest.merkle import leaf_hash
from attest.multiproof import nodes_from_paths
from attest.note import Note
from attest.proof import ProofRecord, encode_proof


def two_runs(tale: ModuleType) -> Any:
    """Tell two runs under one contract; globex refutes the first, acme samples both."""
    story = tale.Story()
    story.open()
    first = story.run
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_audit("globex", sources=(), init="fail")
    story.records["first"] = first
    names = ("genesis", "attempt-1", "intent acme", "final", "audit acme", "audit globex")
    story.first = {name: story.at[name] for name in names}
    story.tell_genesis(plan=tale.digest("another plan"))
    story.tell_attempt()
    story.tell_intent("acme")
    story.tell_final()
    story.tell_audit("acme")
    story.tell_property("acme")
    story.tell_status()
    return story


SIZE = 14


@given(
    shown=st.sets(st.integers(0, SIZE - 1)),
    forced=st.sampled_from(["none", "first", "second", "both"]),
    sizes=st.sets(st.integers(1, SIZE - 1), max_size=2),
    data=st.data(),
)
@settings(max_examples=120, deadline=None)
def test_choosing_what_to_show_gains_nothing(
    tale: ModuleType, shown: set[int], forced: str, sizes: set[int], data: st.DataObject
) -> None:
    story = two_runs(tale)
    assert len(story.leaves) == SIZE
    second = {story.at[n] for n in ("genesis", "attempt-1", "intent acme", "final", "audit acme")}
    second |= {0, story.at["property acme"], story.at["status"]}
    first = {0, *story.first.values()}
    if forced == "first":
        shown = first ^ data.draw(st.sets(st.integers(0, SIZE - 1), max_size=2))
    elif forced == "second":
        shown = second ^ data.draw(st.sets(st.integers(0, SIZE - 1), max_size=1))
        sizes |= {story.at["status"]}
    elif forced == "both":
        shown = first | second
    if not shown:
        return
    try:
        verdict = story.verify(story.proof_of(shown, sizes=sizes))
    except (FormatError, RefusedError):
        return
    if verdict.run == story.records["first"]:
        # Refuted: without a status the refutation can be left out, and then nothing counts.
        assert story.first["audit globex"] not in shown
        assert verdict.level.text == "witnessed"
    elif verdict.level.text != "witnessed":
        assert shown == second


@pytest.mark.parametrize("name", ["intent acme", "final", "audit acme", "attempt-1"])
def test_record_of_the_other_run_is_no_substitute(tale: ModuleType, refused, name: str) -> None:
    story = two_runs(tale)
    proof = story.proof()
    indices = {r.index for r in proof.records} - {story.at[name]} | {story.first[name]}
    checks = {"intent acme": "relevance", "final": "final", "audit acme": "audit"}
    refused(checks.get(name, "attempts"), story, story.proof_of(indices, sizes=proof.sizes))


OPERATIONS = ("drop", "repeat", "swap", "move", "resign", "node", "size", "null")


@given(operation=st.sampled_from(OPERATIONS), data=st.data())
@settings(max_examples=100, deadline=None)
def test_rearranged_proof_is_refused(tale: ModuleType, operation: str, data: st.DataObject) -> None:
    whole = json.loads(tale.honest().file())
    value = json.loads(json.dumps(whole))
    records, nodes = value["records"], value["nodes"]
    a, b = (data.draw(st.integers(0, len(records) - 1)) for _ in range(2))
    if operation == "drop":
        records.pop(a)
    elif operation == "repeat":
        records.append({**records[a], "index": data.draw(st.integers(0, 30))})
        records.sort(key=lambda record: record["index"])
    elif operation == "swap":
        records[a], records[b] = (
            {**records[b], "index": records[a]["index"]},
            {**records[a], "index": records[b]["index"]},
        )
    elif operation == "move":
        records[a]["index"] = data.draw(st.integers(0, 30))
        records.sort(key=lambda record: record["index"])
    elif operation == "resign":
        records[a]["signatures"] = records[b]["signatures"]
    elif operation == "node":
        i, j = (data.draw(st.integers(0, len(nodes) - 1)) for _ in range(2))
        nodes[i], nodes[j] = nodes[j], nodes[i]
    elif operation == "size":
        value["sizes"] = sorted(data.draw(st.sets(st.integers(0, 30), max_size=3)))
    else:
        value["statusCheckpoint"] = value["checkpoint"]
    if value == whole or value == with_more_sizes(tale, value["sizes"]):
        return
    with pytest.raises((FormatError, RefusedError)):
        tale.verify_run(canonical.encode(value), tale.policy(), now=tale.NOW)


def with_more_sizes(tale: ModuleType, sizes: list[int]) -> Any:
    """Return the honest proof that also leads on from these sizes.

    None where its own are not among them, or one is no size before the checkpoint's.
    """
    story = tale.honest()
    proof = story.proof()
    size = Checkpoint.from_text(Note.from_bytes(proof.checkpoint).text).size
    if not set(proof.sizes) <= set(sizes) or not all(0 < n < size for n in sizes):
        return None
    again = story.proof_of(
        [record.index for record in proof.records],
        sizes=sizes,
        checkpoint=proof.checkpoint,
        status_checkpoint=proof.status_checkpoint,
    )
    return json.loads(encode_proof(again))


def test_proof_that_leads_on_from_one_more_size_is_another_honest_one(tale: ModuleType) -> None:
    # The root of the first entry alone is its leaf, which the proof holds: no node is added, and
    # none is missing for a reader who remembers that size.
    value = json.loads(tale.honest().file())
    value["sizes"] = [1, *value["sizes"]]
    assert value == with_more_sizes(tale, value["sizes"])
    tale.verify_run(canonical.encode(value), tale.policy(), now=tale.NOW)
    value["sizes"] = value["sizes"][:1]
    assert with_more_sizes(tale, value["sizes"]) is None
    with pytest.raises((FormatError, RefusedError)):
        tale.verify_run(canonical.encode(value), tale.policy(), now=tale.NOW)


# --- signers who sign anything ---

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53 - 1, -(2**53 - 1), 1000, 1001, 20]),
    st.sampled_from(["", "0" * 64, "f" * 64, "nan", "inf", "0x0.0p+0", "-0x1.0000000000000p+0"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found += paths(item, (*here, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def signed_over(envelope: Envelope, payload: bytes, tale: ModuleType) -> Envelope:
    names = (*tale.ROLES, "worker-1", "worker-2", "stranger")
    by_id = {tale.key(name).keyid: tale.key(name) for name in names}
    return sign(payload, [by_id[s.keyid] for s in envelope.signatures])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_signed_is_judged_or_refused(tale: ModuleType, data: st.DataObject) -> None:
    story = tale.honest()
    told = list(story.at.values())
    index = data.draw(st.sampled_from(told), label="record")
    envelope = story.entry(index)
    statement = json.loads(envelope.payload)
    path = data.draw(st.sampled_from(paths(statement)), label="path")
    payload = canonical.encode(put(statement, path, data.draw(VALUES, label="value")))
    changed = signed_over(envelope, payload, tale)
    story.replace_entry(index, changed)
    whole = story.proof_of(i for i in told if i != index) if len(told) > 1 else None
    assert whole is not None
    forged = ProofRecord(
        index, changed, None, changed.record_hash().hex(), leaf_hash(changed.to_bytes())
    )
    records = sorted((*whole.records, forged), key=lambda r: r.index)
    if data.draw(st.booleans(), label="with status"):
        records = [r for r in records if r.index != story.at["status"]]
    indices = [r.index for r in records]
    sizes = [story.at["status"]] if story.at["status"] in indices else []
    nodes = nodes_from_paths(len(story.leaves), indices, sizes, story.inclusion)
    proof = replace(
        whole,
        records=tuple(records),
        sizes=tuple(sizes),
        nodes=tuple(nodes),
        checkpoint=story.checkpoint(),
    )
    try:
        verdict = tale.verify_run(encode_proof(proof), tale.policy(), now=tale.NOW)
    except AttestError as error:
        assert isinstance(error, FormatError | RefusedError), repr(error)
        return
    # What may be signed freely (an environment, a metric) lifts nothing.
    assert verdict.level <= Level.SAMPLED
    assert verdict.audits == () or verdict.audits[0].passed <= 1000
    assert verdict.text().count("\n") >= 10
