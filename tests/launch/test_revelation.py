"""One nonce is revealed for one final record; whoever is shown a second holds the evidence."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from attest.envelope import Envelope, sign
from attest.errors import EquivocationError
from attest.keys import PrivateKey
from attest.sample import commitment
from attest.statements import ExportedFile, Final, Intent, Line, encode_statement
from launch.audit_sources import find_sources
from launch.auditor_home import keep_nonce
from launch.auditor_name import AuditorName
from launch.logged_run import Announced, LoggedIntent
from launch.revelation import keep_revelation

RUN = "a" * 64
INTENT = "b" * 64
NONCE = bytes(range(32))
KEY = PrivateKey(bytes(32))


def final(state: str) -> Envelope:
    said = Final(
        state_root=state * 64,
        files=(ExportedFile("w", "e" * 64),),
        run=RUN,
        line=Line(4, "d" * 64),
        steps=3,
        attempts=1,
        metrics={},
    )
    return sign(encode_statement(said), [KEY])


def sources(shown: Envelope) -> tuple[Any, ...]:
    intent = Intent("run", RUN, "acme", commitment(NONCE).hex())
    announced = Announced((LoggedIntent(0, INTENT, KEY.keyid, intent),), {}, 1)
    log = cast(Any, SimpleNamespace(entry=lambda index: {1: shown}[index]))
    return find_sources(log, announced, AuditorName(KEY, "acme", own=False), None)


def test_nonce_is_bound_to_its_final_record_before_it_is_given_away(key_home: Path) -> None:
    kept = keep_nonce(INTENT, NONCE)
    (source,) = sources(final("1"))
    assert source.nonce == NONCE.hex()
    bound = kept.with_name(f"{INTENT}.final.json")
    assert Envelope.from_bytes(bound.read_bytes()) == final("1")
    assert bound.stat().st_mode & 0o77 == 0


def test_same_final_record_may_be_asked_for_again(key_home: Path) -> None:
    keep_nonce(INTENT, NONCE)
    assert sources(final("1")) == sources(final("1"))


def test_second_final_record_is_refused_with_both_as_evidence(key_home: Path) -> None:
    kept = keep_nonce(INTENT, NONCE)
    sources(final("1"))
    with pytest.raises(EquivocationError) as caught:
        sources(final("2"))
    message = str(caught.value)
    assert caught.value.exit_code == 3 and "\n" not in message
    evidence = kept.with_name(f"{INTENT}.two-finals.json")
    assert caught.value.evidence == evidence
    told = json.loads(evidence.read_bytes())
    shown = [Envelope.from_bytes(base64.b64decode(told[name])) for name in ("first", "second")]
    assert shown == [final("1"), final("2")]
    assert all(envelope.record_hash().hex() in message for envelope in shown)
    # The first stays the one it is for.
    assert len(sources(final("1"))) == 1


def test_two_nonces_may_be_for_two_final_records(key_home: Path) -> None:
    assert keep_revelation(INTENT, final("1")) != keep_revelation("c" * 64, final("2"))
