"""Service and light client judge the same bytes alike, by one table of reasons."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attest.errors import FormatError
from attest.keys import ALG_ED25519, VerifierKey
from attest.log.wire import encode_lines, read_refusal
from attest.proof import ProofRecord
from attest.rejections import RECORDS, REQUESTS, TABLE, RejectedError, is_transient, reject


def client_rule(leaf: bytes) -> str:
    """Return what the light client says of a record's form, empty if it has one."""
    from attest.envelope import Envelope

    if len(leaf) > 65_535:
        return "too large"
    try:
        ProofRecord.read(0, Envelope.from_bytes(leaf))
    except FormatError as error:
        return error.code
    return ""


def client_takes_key(public: bytes) -> bool:
    """Tell whether the light client registers a key: it reads keys from policies as vkeys."""
    try:
        VerifierKey("somebody", ALG_ED25519, public)
    except FormatError:
        return False
    return True


def test_each_public_key_of_the_edge_cases_is_taken_by_both_or_by_none(
    quiet: Any, vectors: Path
) -> None:
    cases = json.loads((vectors / "ed25519_cctv.json").read_text())
    publics = sorted({bytes.fromhex(case["key"]) for case in cases})
    taken = {public for public in publics if client_takes_key(public)}
    assert 0 < len(taken) < len(publics)
    for public in publics:
        reply = quiet.ask("POST", "/submit", encode_lines([], [public]))
        if public in taken:
            assert (reply.status, reply.json) == (200, {"indices": []})
        else:
            assert (reply.status, reply.code, reply.json["rule"]) == (400, "key", "public key")


EDITS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sampled_from(["flip", "delete", "insert", "double"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def edited(leaf: bytes, edits: list[tuple[int, str, int]]) -> bytes:
    data = bytearray(leaf)
    for place, kind, value in edits:
        at = place % len(data)
        if kind == "flip":
            data[at] ^= value or 1
        elif kind == "delete":
            del data[at : at + 1 + value % 4]
        elif kind == "insert":
            data[at:at] = bytes([value])
        else:
            data[at:at] = data[max(0, at - value) : at]
        data = data or bytearray(b"{")
    # A line cannot hold a newline, and one that begins so is a key.
    return bytes(data).replace(b"\n", b" ").replace(b'{"key"', b'{"kex"')


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 5), edits=EDITS)
def test_edited_record_breaks_the_same_rule_for_both(
    quiet: Any, which: int, edits: list[tuple[int, str, int]]
) -> None:
    leaf = edited(quiet.log.entry(which).to_bytes(), edits)
    reply = quiet.submit(leaf)
    rule = client_rule(leaf)
    if reply.status == 200:
        assert (rule, reply.json["indices"]) == ("", [which])
    elif reply.code in ("statement", "size"):
        assert reply.json["rule"] == rule != ""
    else:
        assert rule == ""
        assert reply.code in RECORDS


def test_table_has_each_code_once_and_a_status_for_each() -> None:
    assert not RECORDS.keys() & REQUESTS.keys()
    assert all(400 <= said.status < 600 and said.words for said in TABLE.values())
    assert {code for code in TABLE if is_transient(code)} == {
        "slow", "quota", "busy", "unavailable",
    }  # fmt: skip
    with pytest.raises(RejectedError, match=r"log refuses it \[quota\]: it is one of too many"):
        reject("quota", "it")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"code":"x","indices":[],"message":"","rule":""}']
)
def test_answer_that_is_no_refusal_of_ours_is_none(data: bytes) -> None:
    assert read_refusal(data) is None


def test_refusal_reads_as_it_was_written(quiet: Any, lab: ModuleType) -> None:
    reply = quiet.submit(b"{}")
    refusal = read_refusal(reply.data)
    assert refusal is not None
    assert (refusal.code, refusal.rule, refusal.indices) == ("statement", "fields", ())
