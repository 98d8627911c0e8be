import base64
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import canonical
from attest.envelope import record_hash
from attest.errors import FormatError
from attest.statements import (
    Nonce,
    Statement,
    decode_statement,
    encode_statement,
    predicate_type,
)

KINDS = [
    "contract",
    "genesis",
    "attempt",
    "step",
    "segment",
    "final",
    "intent",
    "nonce",
    "audit",
    "property",
    "status",
    "held",
    "conflict",
    "key-event",
]
every_kind = pytest.mark.parametrize("kind", KINDS)
Examples = dict[str, Any]


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def parsed(statement: Statement) -> dict:
    return json.loads(encode_statement(statement))


def decode(value: object) -> Statement:
    return decode_statement(canonical.encode(value))


@every_kind
def test_a_statement_reads_back_as_written(kind: str, examples: Examples) -> None:
    statement = examples[kind]
    payload = encode_statement(statement)
    assert decode_statement(payload) == statement
    assert encode_statement(decode_statement(payload)) == payload
    assert kind == statement.KIND
    assert predicate_type(type(statement)) == f"https://anh-jax.dev/attest/{kind}/v1"


def test_known_payload() -> None:
    nonce = Nonce("ab" * 32, "cd" * 32)
    assert encode_statement(nonce) == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"nonce":"%s"},'
        b'"predicateType":"https://anh-jax.dev/attest/nonce/v1",'
        b'"subject":[{"digest":{"anhRecordV1":"%s"},"name":"record"}]}' % (b"cd" * 32, b"ab" * 32)
    )


@every_kind
def test_a_statement_is_an_in_toto_statement(kind: str, examples: Examples) -> None:
    value = parsed(examples[kind])
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == f"https://anh-jax.dev/attest/{kind}/v1"
    names = [subject["name"] for subject in value["subject"]]
    assert len(set(names)) == len(names)


def paths(value: object, at: tuple = ()) -> Iterator[tuple]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, dict | list):
        for key, item in items:
            yield from paths(item, (*at, key)) if isinstance(item, dict | list) else [(*at, key)]


def parent(value, path: tuple):
    for key in path[:-1]:
        value = value[key]
    return value


FREE = {"environment", "executionClass", "metrics", "digest"}


@every_kind
def test_every_missing_field_is_refused_by_name(kind: str, examples: Examples) -> None:
    value = parsed(examples[kind])
    for path in paths(value):
        if not path or not isinstance(path[-1], str) or (len(path) > 1 and path[-2] in FREE):
            continue
        changed = copy.deepcopy(value)
        del parent(changed, path)[path[-1]]
        with pytest.raises(FormatError) as refusal:
            decode(changed)
        if path[0] == "predicate" and len(path) > 1:
            assert path[-1] in str(refusal.value)


@every_kind
def test_every_unknown_field_is_refused_by_name(kind: str, examples: Examples) -> None:
    value = parsed(examples[kind])
    for path in [p for p in paths(value) if isinstance(parent(value, (*p, 0)), dict)]:
        if path and path[-1] in FREE:
            continue
        changed = copy.deepcopy(value)
        parent(changed, (*path, "surprise"))["surprise"] = 1
        with pytest.raises(FormatError) as refusal:
            decode(changed)
        if path[:1] == ("predicate",):
            assert "surprise" in str(refusal.value)


WRONG = [None, True, 1, -1, 2**53 - 1, "", "x", "\x1b", " ", "A" * 64, "0" * 63, [], {}, [[]]]


@every_kind
def test_every_value_of_a_wrong_kind_is_refused_or_read_as_another_statement(
    kind: str, examples: Examples
) -> None:
    statement, value = examples[kind], parsed(examples[kind])
    for path in list(paths(value))[1:]:
        for wrong in WRONG:
            changed = copy.deepcopy(value)
            old = parent(changed, path)[path[-1]]
            if type(old) is type(wrong) and old == wrong:
                continue
            parent(changed, path)[path[-1]] = wrong
            try:
                other = decode(changed)
            except FormatError as refusal:
                assert len(str(refusal)) < 400
                assert str(refusal).isprintable()
                continue
            assert other != statement
            assert encode_statement(other) == canonical.encode(changed)


@every_kind
def test_every_changed_byte_is_refused_or_read_as_another_statement(
    kind: str, examples: Examples
) -> None:
    statement, payload = examples[kind], encode_statement(examples[kind])
    for i, old in enumerate(payload):
        for new in {old ^ 1, old ^ 32, ord("0"), ord('"')} - {old}:
            changed = payload[:i] + bytes([new]) + payload[i + 1 :]
            try:
                other = decode_statement(changed)
            except FormatError:
                continue
            assert other != statement
            assert encode_statement(other) == changed


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_statement(payload: bytes) -> None:
    with pytest.raises(FormatError):
        decode_statement(payload)


@pytest.mark.parametrize("payload", [b"[]", b"null", b"1", b'"x"', b"{}", b"true"])
def test_other_json_is_no_statement(payload: bytes) -> None:
    with pytest.raises(FormatError):
        decode_statement(payload)


@pytest.mark.parametrize(
    "uri",
    [
        "https://anh-jax.dev/attest/step/v2",
        "https://anh-jax.dev/attest/unknown/v1",
        "https://slsa.dev/provenance/v1",
        "step",
        "",
        7,
    ],
)
def test_an_unknown_kind_is_refused(uri: object, examples: Examples) -> None:
    with pytest.raises(FormatError) as refusal:
        decode(parsed(examples["step"]) | {"predicateType": uri})
    assert refusal.value.code == "unknown kind"


def test_another_statement_type_is_refused(examples: Examples) -> None:
    with pytest.raises(FormatError):
        decode(parsed(examples["step"]) | {"_type": "https://in-toto.io/Statement/v0.1"})


def test_later_attempts_resume_from_a_step_or_again_from_genesis(examples: Examples) -> None:
    first = examples["attempt"]
    for statement in (
        dataclasses.replace(
            first, number=2, step=9, resumed_from=digest("step 9"), reason="worker lost"
        ),
        dataclasses.replace(first, number=2, reason="resume"),
    ):
        assert decode_statement(encode_statement(statement)) == statement


def test_a_self_sample_may_have_no_source(examples: Examples) -> None:
    statement = dataclasses.replace(examples["audit"], sample="self", sources=())
    assert decode_statement(encode_statement(statement)) == statement


def test_a_conflict_carries_whole_envelopes(examples: Examples) -> None:
    conflict = examples["conflict"]
    value = parsed(conflict)
    first = value["predicate"]["first"]
    assert base64.b64decode(first) == conflict.first.to_bytes()
    assert value["subject"][0]["digest"]["anhRecordV1"] == record_hash(conflict.first.payload).hex()
    for broken in (first[:-4], first + "AAAA", "AAAA", "", "====", first.replace("=", "")):
        if broken == first:
            continue
        value["predicate"]["first"] = broken
        with pytest.raises(FormatError):
            decode(value)
