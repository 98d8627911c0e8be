"""Every decoder of foreign bytes: what it does not read it refuses by the room's own error."""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import canonical
from attest.checkpoint import open_checkpoint
from attest.consistency_file import ConsistencyFile
from attest.cosignature import open_cosigned
from attest.envelope import Envelope
from attest.equivocation import (
    check_evidence,
    check_row_evidence,
    encode_evidence,
    encode_row_evidence,
)
from attest.errors import AttestError, FormatError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.log.snapshot import Snapshot
from attest.log.wire import encode_lines, read_submission, split_lines
from attest.note import Note
from attest.policy import parse_policy, policy_text
from attest.proof import encode_proof, parse_proof
from attest.statements import decode_statement
from attest.tlog_proof import TlogProof
from attest.witness_wire import AddCheckpoint, decode_size
from attest.witness_wire import decode_lines as decode_witness_lines

Decoder = Callable[[bytes], Any]
ORIGIN = "log.example/runs"


def log_key(name: str = "log", algorithm: int = ALG_ED25519) -> VerifierKey:
    from run_cast import key

    label = ORIGIN if name == "log" else f"{name}.example"
    return VerifierKey(label, algorithm, key(name).public)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


DECODERS: dict[str, Decoder] = {
    "canonical": lambda data: canonical.decode(data, max_bytes=1 << 16),
    "note": Note.from_bytes,
    "checkpoint": lambda data: open_checkpoint(data, log_key()),
    "cosignature": lambda data: open_cosigned(
        data, log_key(), [log_key("wit-a", ALG_COSIGNATURE), log_key("wit-b", ALG_COSIGNATURE)]
    ),
    "tlog proof": TlogProof.from_bytes,
    "envelope": Envelope.from_bytes,
    "statement": decode_statement,
    "policy": lambda data: parse_policy(text_of(data)),
    "vkey": lambda data: VerifierKey.from_text(text_of(data)),
    "private key": PrivateKey.from_openssh,
    "submission": lambda data: read_submission(split_lines(data)),
    "add-checkpoint": AddCheckpoint.from_bytes,
    "witness lines": decode_witness_lines,
    "witness size": decode_size,
    "consistency file": ConsistencyFile.from_bytes,
    "log evidence": lambda data: check_evidence(data, log_key()),
    "row evidence": lambda data: check_row_evidence(data, "a" * 64),
    "run proof": parse_proof,
    "snapshot": Snapshot.from_bytes,
}


@cache
def examples(tale: ModuleType) -> dict[str, bytes]:
    """Return bytes of each format, sound but for what only its reader could know."""
    story = tale.honest()
    checkpoint = story.checkpoint()
    entry = story.entry(story.at["audit acme"])
    lines = checkpoint.partition(b"\n\n")[2]
    envelopes = [story.entry(story.at[name]) for name in ("genesis", "attempt-1")]
    root = b"%d\n" % len(story.leaves)
    return {
        "canonical": entry.payload,
        "note": checkpoint,
        "checkpoint": story.checkpoint(witnesses=()),
        "cosignature": checkpoint,
        "tlog proof": TlogProof(
            3, tuple(story.inclusion(3, len(story.leaves))), checkpoint
        ).to_bytes(),
        "envelope": entry.to_bytes(),
        "statement": entry.payload,
        "policy": policy_text(tale.policy()).encode(),
        "vkey": log_key().to_text().encode(),
        "private key": tale.key("acme").to_openssh("acme"),
        "submission": encode_lines([entry.to_bytes()], [tale.key("acme").public]),
        "add-checkpoint": b"old 0\n\n" + checkpoint,
        "witness lines": lines,
        "witness size": root,
        "consistency file": ConsistencyFile(
            ORIGIN, 3, len(story.leaves), tuple(story.consistency(3, len(story.leaves)))
        ).to_bytes(),
        "log evidence": encode_evidence(checkpoint, story.checkpoint(root=bytes(32)), None),
        "row evidence": encode_row_evidence(*envelopes, [entry, entry]),
        "run proof": encode_proof(story.proof()),
        "snapshot": b"0" * 64 + b"\n{}",
    }


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Draw sound bytes with some of them changed, cut, doubled or spliced, or others altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        new = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(bytes(data[start:stop]) * 2),
                st.sampled_from([b"\n", b"{", b"[", b'"', b"-1", b"1e9", b"null", b"9" * 40]),
            )
        )
        data[start:stop] = new
    return bytes(data)


def check(tale: ModuleType, name: str, data: bytes) -> None:
    try:
        DECODERS[name](data)
    except AttestError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", [*DECODERS])
@given(drawn=st.data())
@settings(max_examples=25, deadline=None)
def test_foreign_bytes_are_read_or_refused(
    tale: ModuleType, name: str, drawn: st.DataObject
) -> None:
    check(tale, name, drawn.draw(damaged(examples(tale)[name])))


@pytest.mark.full
@pytest.mark.parametrize("name", [*DECODERS])
@given(drawn=st.data())
@settings(max_examples=5000, deadline=None)
def test_foreign_bytes_are_read_or_refused_at_length(
    tale: ModuleType, name: str, drawn: st.DataObject
) -> None:
    check(tale, name, drawn.draw(damaged(examples(tale)[name])))


# What no reader without the right keys or hashes can accept.
UNREADABLE = {"row evidence", "snapshot"}


@pytest.mark.parametrize("name", [*DECODERS])
def test_sound_bytes_are_read(tale: ModuleType, name: str) -> None:
    data = examples(tale)[name]
    if name in UNREADABLE:
        with pytest.raises((AttestError, FormatError)):
            DECODERS[name](data)
    else:
        DECODERS[name](data)
