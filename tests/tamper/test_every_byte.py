"""In run.proof every byte counts: none can be changed, dropped or added unnoticed."""

from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.check import CHECKS
from attest.errors import FormatError, RefusedError
from attest.proof import encode_proof


def refusal(tale: ModuleType, data: bytes, policy: Any) -> str:
    """Return the check or rule that refuses these bytes; anything else fails the test."""
    with pytest.raises((FormatError, RefusedError)) as caught:
        tale.verify_run(data, policy, now=tale.NOW)
    error = caught.value
    assert error.exit_code in (1, 2)
    assert "\n" not in str(error)
    if isinstance(error, RefusedError):
        assert error.check in CHECKS, error
        assert str(error).startswith(f"{error.check}: ")
        return error.check
    assert error.code
    return error.code


def full_story(tale: ModuleType) -> Any:
    """Tell a run that has every kind of record a proof may hold."""
    story = tale.Story()
    story.open()
    step = story.tell_step(4)
    story.tell_attempt(number=2, step=4, resumed_from=step)
    story.tell_intent("globex", about="contract")
    story.tell_intent("acme")
    story.fill(3)
    story.tell_final()
    story.tell_nonce("acme")
    story.tell_audit("acme")
    story.tell_audit("globex", init="not checked")
    story.tell_audit("stranger", sources=(), signer="stranger")
    story.tell_property("acme")
    story.tell_key_event("revoke", "acme", 0, owner="stranger", signers=["stranger"])
    first, second = (story.entry(story.at[name]) for name in ("attempt-1", "final"))
    story.tell_conflict(first, second, signer="stranger")
    story.tell_status()
    return story


def full_proof(tale: ModuleType) -> Any:
    story = full_story(tale)
    size = story.at["status"]
    story.fill(5)
    return story.proof_and("nonce acme", status_checkpoint=story.checkpoint(size=size))


@cache
def files(tale: ModuleType) -> tuple[bytes, ...]:
    return tale.honest().file(), encode_proof(full_proof(tale))


def test_honest_proofs_are_accepted(tale: ModuleType) -> None:
    assert tale.honest().verify().level.text == "sampled"
    assert full_story(tale).verify(full_proof(tale)).level.text == "sampled"


def test_every_changed_byte_is_refused(tale: ModuleType) -> None:
    data, policy = tale.honest().file(), tale.policy()
    assert len(data) <= 16 * 1024
    seen: set[str] = set()
    for at in range(len(data)):
        # Bits 0 to 6 in turn: the byte stays ASCII, and often a digit, a letter, base64.
        changed = data[:at] + bytes([data[at] ^ (1 << at % 7)]) + data[at + 1 :]
        seen.add(refusal(tale, changed, policy))
    assert {"inclusion", "checkpoint signature", "witness quorum", "not json"} <= seen


@pytest.mark.full
def test_every_changed_byte_of_a_proof_with_all_kinds_of_records_is_refused(
    tale: ModuleType,
) -> None:
    data, policy = encode_proof(full_proof(tale)), tale.policy()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ (1 << (at * 5 + 3) % 8)]) + data[at + 1 :]
        refusal(tale, changed, policy)


@pytest.mark.full
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(tale: ModuleType, which: int, bit: int) -> None:
    data, policy = files(tale)[which], tale.policy()
    # Over the eight bits: some 50,000 mutants of each file and more.
    assert len(data) * 8 >= 20_000
    for at in range(len(data)):
        refusal(tale, data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :], policy)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_cut_splice_or_repetition_is_refused(tale: ModuleType, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(files(tale)))
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    middle = data.draw(
        st.one_of(st.just(b""), st.binary(max_size=20), st.just(whole[start:end] * 2))
    )
    changed = whole[:start] + middle + whole[end:]
    if changed != whole:
        refusal(tale, changed, tale.policy())


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_proof_are_refused(tale: ModuleType, data: bytes) -> None:
    refusal(tale, data, tale.policy())
