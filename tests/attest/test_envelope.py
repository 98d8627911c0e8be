import base64
import hashlib
import itertools
import json
import secrets
import shutil
import subprocess
from pathlib import Path

import nacl.bindings as sodium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import canonical
from attest.envelope import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    Envelope,
    Signature,
    keyid,
    pae,
    record_hash,
    row_hash,
    sign,
    verify_signatures,
)
from attest.errors import FormatError, RefusedError
from attest.keys import PrivateKey

# Seeds of RFC 8032 section 7.1, tests 1 to 3.
KEYS = [
    PrivateKey(bytes.fromhex(seed))
    for seed in (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    )
]
KEY = KEYS[0]
OPENSSL = shutil.which("openssl")
PAYLOAD = b'{"a":"hello"}'


def public(keys) -> dict[str, bytes]:
    return {key.keyid: key.public for key in keys}


def signed_again(payload: bytes, seed: bytes) -> bytes:
    """Sign with a random nonce: another valid Ed25519 signature of the same message and key."""
    message = pae(payload)
    key = PrivateKey(seed)
    digest = hashlib.sha512(seed).digest()
    scalar = bytes([digest[0] & 248]) + digest[1:31] + bytes([digest[31] & 63 | 64])
    nonce = sodium.crypto_core_ed25519_scalar_reduce(secrets.token_bytes(64))
    point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = sodium.crypto_core_ed25519_scalar_reduce(
        hashlib.sha512(point + key.public + message).digest()
    )
    reduced = sodium.crypto_core_ed25519_scalar_reduce(scalar + bytes(32))
    product = sodium.crypto_core_ed25519_scalar_mul(challenge, reduced)
    return point + sodium.crypto_core_ed25519_scalar_add(nonce, product)


def test_pae_frames_type_and_payload_by_length() -> None:
    assert pae(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
    assert pae(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "


def test_known_hashes() -> None:
    assert record_hash(b"{}").hex() == hashlib.sha256(b"anh v1 record\x00{}").hexdigest()
    assert row_hash(b"{}").hex() == hashlib.sha256(b"anh v1 row\x00{}").hexdigest()
    assert record_hash(b"{}").hex() == RECORD_OF_EMPTY
    assert row_hash(b"{}").hex() == ROW_OF_EMPTY
    assert keyid(KEY.public) == KEYID_1


RECORD_OF_EMPTY = "0815cabb67b908f637e992f7b54597ddf13dc8b6252b18eb0f3ad0b692489921"
ROW_OF_EMPTY = "98cc0aff71f139767657bc975e9ef9f82f6f8b872b95fa1cfe09ad6c58e7dd6e"
KEYID_1 = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"
GOLDEN = (
    b'{"payload":"eyJhIjoiaGVsbG8ifQ==","payloadType":"application/vnd.in-toto+json",'
    b'"signatures":[{"keyid":"21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9",'
    b'"sig":"oei/w2Pp5XnFrrmfcCGIoBQI3bGq03FXIdRJ1VjN3prmuEcBhlRZQbitQdywy2m0eCo6YXAjDZlcBT7xX1FLAQ=="}]}'
)


def test_known_envelope() -> None:
    assert sign(PAYLOAD, [KEY]).to_bytes() == GOLDEN
    assert Envelope.from_bytes(GOLDEN) == sign(PAYLOAD, [KEY])


@given(st.binary(max_size=200), st.sets(st.sampled_from(range(3)), min_size=1))
def test_an_envelope_reads_back_as_written(payload: bytes, who: set[int]) -> None:
    keys = [KEYS[i] for i in who]
    envelope = sign(payload, keys)
    data = envelope.to_bytes()
    assert Envelope.from_bytes(data) == envelope
    assert Envelope.from_bytes(data).to_bytes() == data
    verify_signatures(envelope, public(keys))


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(FormatError):
        Envelope.from_bytes(data)


def refused(data: bytes, keys: dict[str, bytes]) -> bool:
    try:
        verify_signatures(Envelope.from_bytes(data), keys)
    except (FormatError, RefusedError):
        return True
    return False


def test_every_single_byte_change_is_refused() -> None:
    keys = public([KEY])
    assert not refused(GOLDEN, keys)
    for i, old in enumerate(GOLDEN):
        for new in range(256):
            if new != old:
                assert refused(GOLDEN[:i] + bytes([new]) + GOLDEN[i + 1 :], keys), (i, new)


def test_every_dropped_doubled_or_cut_byte_is_refused() -> None:
    keys = public([KEY])
    for i in range(len(GOLDEN)):
        assert refused(GOLDEN[:i] + GOLDEN[i + 1 :], keys), i
        assert refused(GOLDEN[:i] + GOLDEN[i : i + 1] + GOLDEN[i:], keys), i
        assert refused(GOLDEN[:i], keys), i


def changed(**top) -> bytes:
    return canonical.encode(json.loads(GOLDEN) | top)


def signature(**fields) -> bytes:
    return changed(signatures=[json.loads(GOLDEN)["signatures"][0] | fields])


SIG = json.loads(GOLDEN)["signatures"][0]["sig"]
OTHER = json.loads(sign(PAYLOAD, [KEYS[1]]).to_bytes())["signatures"][0]
MINE = json.loads(GOLDEN)["signatures"][0]
MALFORMED = {
    "unknown field": changed(extra=1),
    "another payload type": changed(payloadType="application/json"),
    "payload not text": changed(payload=1),
    "no signature": changed(signatures=[]),
    "signatures an object": changed(signatures={}),
    "signatures null": changed(signatures=None),
    "signatures a number": changed(signatures=1),
    "signatures text": changed(signatures=MINE["keyid"]),
    "signature not an object": changed(signatures=["x"]),
    "unknown field in a signature": signature(cert="x"),
    "keyid not text": signature(keyid=1),
    "upper-case keyid": signature(keyid=MINE["keyid"].upper()),
    "short keyid": signature(keyid=MINE["keyid"][:-2]),
    "empty keyid": signature(keyid=""),
    "keyid with a newline": signature(keyid=MINE["keyid"] + "\n"),
    "signature of 63 bytes": signature(sig=base64.b64encode(bytes(63)).decode()),
    "signature of 65 bytes": signature(sig=base64.b64encode(bytes(65)).decode()),
    "base64 without padding": signature(sig=SIG.rstrip("=")),
    "base64 with more padding": signature(sig=SIG + "===="),
    "base64 with set spare bits": changed(payload="eyJhIjoiaGVsbG8ifR=="),
    "URL-safe base64": signature(sig=SIG.replace("+", "-").replace("/", "_")),
    "base64 with a newline": signature(sig=SIG[:40] + "\n" + SIG[40:]),
    "the same key twice": changed(signatures=[MINE, MINE]),
    "unsorted": changed(signatures=sorted([MINE, OTHER], key=lambda s: s["keyid"], reverse=True)),
    "list": b"[]",
    "too deep": changed(payload={"a": {"b": {"c": 1}}}),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_envelopes_are_refused(data: bytes) -> None:
    assert data != GOLDEN
    with pytest.raises(FormatError):
        Envelope.from_bytes(data)


def test_the_size_limit_is_that_of_a_log_entry() -> None:
    overhead = len(sign(b"", [KEY]).to_bytes())
    fits = sign(bytes((MAX_ENVELOPE_BYTES - overhead) // 4 * 3), [KEY])
    assert Envelope.from_bytes(fits.to_bytes()) == fits
    with pytest.raises(FormatError) as refusal:
        sign(fits.payload + b"   ", [KEY]).to_bytes()
    assert refusal.value.code == "too large"
    with pytest.raises(FormatError):
        Envelope.from_bytes(b'"' + bytes(MAX_ENVELOPE_BYTES) + b'"')


def test_signing_is_sorted_whatever_the_order_of_keys() -> None:
    envelopes = {sign(PAYLOAD, order).to_bytes() for order in itertools.permutations(KEYS)}
    assert len(envelopes) == 1


@pytest.mark.parametrize("keys", [[], [KEY, KEY]], ids=["no key", "one key twice"])
def test_signing_needs_each_key_once(keys: list[PrivateKey]) -> None:
    with pytest.raises(FormatError):
        sign(PAYLOAD, keys)


def test_exactly_the_expected_keys_must_have_signed() -> None:
    envelope = sign(PAYLOAD, KEYS[:2])
    verify_signatures(envelope, public(KEYS[:2]))
    for keys in (KEYS[:1], KEYS, KEYS[1:], []):
        with pytest.raises(RefusedError) as refusal:
            verify_signatures(envelope, public(keys))
        assert refusal.value.check == "signers"


def test_one_bad_signature_among_good_ones_is_refused() -> None:
    good = sign(PAYLOAD, KEYS)
    for i, bad in enumerate(good.signatures):
        forged = Signature(bad.keyid, bytes([bad.sig[0] ^ 1]) + bad.sig[1:])
        signatures = good.signatures[:i] + (forged,) + good.signatures[i + 1 :]
        with pytest.raises(RefusedError) as refusal:
            verify_signatures(Envelope(PAYLOAD, signatures), public(KEYS))
        assert refusal.value.check == "signature"


def test_a_keyid_that_is_not_its_keys_hash_is_refused() -> None:
    envelope = sign(PAYLOAD, [KEY])
    renamed = Envelope(PAYLOAD, (Signature(KEYS[1].keyid, envelope.signatures[0].sig),))
    with pytest.raises(RefusedError):
        verify_signatures(renamed, {KEYS[1].keyid: KEY.public})


def test_a_signature_over_the_bare_payload_is_refused() -> None:
    envelope = Envelope(PAYLOAD, (Signature(KEY.keyid, KEY.sign(PAYLOAD)),))
    with pytest.raises(RefusedError):
        verify_signatures(envelope, public([KEY]))


def test_a_second_valid_signature_gives_another_leaf_but_the_same_record() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    first = sign(PAYLOAD, [KEY])
    leaves = {first.to_bytes()}
    for _ in range(20):
        again = Envelope(PAYLOAD, (Signature(KEY.keyid, signed_again(PAYLOAD, seed)),))
        verify_signatures(again, public([KEY]))
        assert again.record_hash() == first.record_hash()
        leaves.add(again.to_bytes())
    assert len(leaves) == 21


def test_signer_subset_and_order_do_not_enter_the_record_hash() -> None:
    hashes = {
        sign(PAYLOAD, keys).record_hash()
        for n in (1, 2, 3)
        for keys in itertools.combinations(KEYS, n)
    }
    assert hashes == {record_hash(PAYLOAD)}


def test_the_domains_of_record_and_row_differ() -> None:
    assert record_hash(PAYLOAD) != row_hash(PAYLOAD)
    assert record_hash(PAYLOAD) != hashlib.sha256(PAYLOAD).digest()


def test_securesystemslib_verifies_our_envelope() -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    envelope = dsse.Envelope.from_dict(json.loads(sign(PAYLOAD, KEYS).to_bytes()))
    theirs = [
        signer.SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public.hex()})
        for key in KEYS
    ]
    assert envelope.pae() == pae(PAYLOAD)
    assert envelope.payload_type == PAYLOAD_TYPE
    assert len(envelope.verify(theirs, 3)) == 3


def test_cryptography_verifies_our_signature() -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    signature = sign(PAYLOAD, [KEY]).signatures[0].sig
    ed25519.Ed25519PublicKey.from_public_bytes(KEY.public).verify(signature, pae(PAYLOAD))


@pytest.mark.skipif(not OPENSSL, reason="no openssl command here")
def test_openssl_verifies_our_signature(tmp_path: Path) -> None:
    spki = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + KEY.public).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n"
    (tmp_path / "key.pem").write_text(pem)
    (tmp_path / "sig").write_bytes(sign(PAYLOAD, [KEY]).signatures[0].sig)

    def verify(message: bytes) -> int:
        (tmp_path / "message").write_bytes(message)
        command = f"{OPENSSL} pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile sig"
        return subprocess.run(command.split(), cwd=tmp_path, capture_output=True).returncode

    assert verify(pae(PAYLOAD)) == 0
    assert verify(PAYLOAD) != 0
