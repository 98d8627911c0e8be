import hashlib
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError, RefusedError
from attest.keys import (
    ALG_COSIGNATURE,
    ALG_ED25519,
    PrivateKey,
    Role,
    VerifierKey,
    check_public_key,
    keyid,
    verify_signature,
)

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
KEY = PrivateKey(bytes.fromhex(RFC8032[0][0]))

# All points of small order, in every encoding that decodes to one.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
# y = 2 is on no point; y = p + 3 and p + 18 are canonical nowhere; an honest key plus order 8.
OTHER_BAD_POINTS = {
    "not on the curve": "02" + "00" * 31,
    "y is p + 3": "f0" + "ff" * 30 + "7f",
    "y is p + 18": "ff" * 31 + "7f",
    "mixed order": "6718d0a3d58deaeaefa655eae3f119071deaa2cfebfd0ca28b670f879d657086",
    "31 bytes": "01" * 31,
    "33 bytes": KEY.public.hex() + "00",
    "empty": "",
}


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_signing_follows_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key.keyid == hashlib.sha256(bytes.fromhex(public)).hexdigest() == keyid(key.public)
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify_signature(key.public, bytes.fromhex(message), bytes.fromhex(signature))
    assert check_public_key(key.public) == key.public


@given(st.binary(max_size=64), st.integers(0, 511))
def test_a_signature_with_one_flipped_bit_is_refused(message: bytes, bit: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RefusedError):
        verify_signature(KEY.public, message, bytes(signature))


def test_a_signature_of_another_message_or_key_or_length_is_refused() -> None:
    signature = KEY.sign(b"m")
    other = PrivateKey(bytes(32)).public
    for public, message, candidate in (
        (KEY.public, b"n", signature),
        (other, b"m", signature),
        (KEY.public, b"m", signature[:-1]),
        (KEY.public, b"m", signature + b"\x00"),
        # The same byte string cut at another place between signature and message.
        (KEY.public, b"", signature + b"m"),
        (KEY.public[:31], b"m", signature),
        # libsodium reads 32 bytes of whatever it is given.
        (KEY.public + b"\x00", b"m", signature),
        (KEY.public, b"m", b""),
    ):
        with pytest.raises(RefusedError) as refusal:
            verify_signature(public, message, candidate)
        assert refusal.value.check == "signature"


def test_a_signature_with_s_past_the_group_order_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(RefusedError):
        verify_signature(KEY.public, b"m", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_keys_are_not_registered(point: str) -> None:
    with pytest.raises(FormatError):
        check_public_key(bytes.fromhex(point))


@pytest.mark.parametrize("point", OTHER_BAD_POINTS.values(), ids=OTHER_BAD_POINTS.keys())
def test_other_bad_points_are_not_registered(point: str) -> None:
    with pytest.raises(FormatError):
        check_public_key(bytes.fromhex(point))


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_can_be_registered(seed: bytes) -> None:
    check_public_key(PrivateKey(seed).public)


def cctv(vectors: Path) -> list[dict]:
    return json.loads((vectors / "ed25519_cctv.json").read_text())


def accepts(case: dict) -> bool:
    try:
        verify_signature(
            bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"])
        )
    except RefusedError:
        return False
    return True


def test_cctv_small_order_and_non_canonical_keys_are_not_registered(vectors: Path) -> None:
    bad = {"low_order_A", "non_canonical_A", "low_order_component_A"}
    registered = set()
    for case in cctv(vectors):
        try:
            check_public_key(bytes.fromhex(case["key"]))
        except FormatError:
            assert bad & set(case["flags"]), case["number"]
        else:
            assert not bad & set(case["flags"] or []), case["number"]
            registered.add(case["key"])
    assert len(registered) == 1


def test_cctv_signatures_are_judged_as_libsodium_judges_them(vectors: Path) -> None:
    accepted = [case for case in cctv(vectors) if accepts(case)]
    assert len(accepted) == 43
    for case in accepted:
        flags = set(case["flags"] or [])
        assert not flags & {"low_order_A", "non_canonical_A", "non_canonical_R", "low_order_R"}


def test_cctv_registered_keys_leave_one_disagreement_with_openssl(vectors: Path) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    invalid = pytest.importorskip("cryptography.exceptions").InvalidSignature
    disagreements: dict[str, list[dict]] = {"registered": [], "refused": []}
    for case in cctv(vectors):
        key, signature = bytes.fromhex(case["key"]), bytes.fromhex(case["sig"])
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, case["msg"].encode())
            theirs = True
        except invalid:
            theirs = False
        try:
            check_public_key(key)
            group = "registered"
        except FormatError:
            group = "refused"
        if theirs != accepts(case):
            disagreements[group].append(case)
    assert len(disagreements["refused"]) == 164
    # The one left needs the secret key: its owner chose R = identity. We refuse, OpenSSL accepts.
    (case,) = disagreements["registered"]
    assert case["flags"] == ["low_order_R"]
    assert not accepts(case)


def test_roles_have_distinct_names() -> None:
    names = " ".join(role.value for role in Role)
    assert names == "author run worker auditor monitor log witness reporter holder owner"


def test_the_secret_is_neither_printed_nor_pickled() -> None:
    seed = RFC8032[0][0]
    for shown in (repr(KEY), str(KEY), f"{KEY}"):
        assert seed not in shown
        assert KEY.keyid in shown
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


def test_generated_keys_differ() -> None:
    assert len({PrivateKey.generate().keyid for _ in range(20)}) == 20


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(FormatError):
        PrivateKey(bytes(length))


# Seeds SHA-256("log") and SHA-256("w1.example/a"); accepted by foreign C2SP tools.
LOG_VKEY = "log.example/anh-test+772b0e7c+AZsfhHkc/HZjBFhU04netcqVRJ2HXydqg4QLBgqznPxx"
WITNESS_VKEY = "w1.example/a+d41e9006+BOctVDQwVW+5d5UVLgg8041gWp+vLcKg2AiGVfg0Hg6e"


def test_known_vkeys() -> None:
    log = PrivateKey(hashlib.sha256(b"log").digest()).public
    witness = PrivateKey(hashlib.sha256(b"w1.example/a").digest()).public
    assert VerifierKey("log.example/anh-test", ALG_ED25519, log).to_text() == LOG_VKEY
    assert VerifierKey("w1.example/a", ALG_COSIGNATURE, witness).to_text() == WITNESS_VKEY


NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="+"), min_size=1
)


@given(st.binary(min_size=32, max_size=32), NAMES, st.sampled_from([ALG_ED25519, ALG_COSIGNATURE]))
def test_a_vkey_reads_back_as_written(seed: bytes, name: str, algorithm: int) -> None:
    key = VerifierKey(name, algorithm, PrivateKey(seed).public)
    assert VerifierKey.from_text(key.to_text()) == key


def test_every_changed_character_of_a_vkey_is_refused() -> None:
    for i, old in enumerate(LOG_VKEY):
        for new in set("AZaz09+/= .é\n") - {old}:
            with pytest.raises(FormatError):
                VerifierKey.from_text(LOG_VKEY[:i] + new + LOG_VKEY[i + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b",
        "a+00000000+",
        "+772b0e7c+AZsf",
        LOG_VKEY + "\n",
        LOG_VKEY.upper(),
        "é+1+AA==",
    ],
)
def test_other_text_is_no_vkey(text: str) -> None:
    with pytest.raises(FormatError):
        VerifierKey.from_text(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "é", "a\nb"])
def test_a_vkey_name_has_no_space_or_plus(name: str) -> None:
    with pytest.raises(FormatError):
        VerifierKey(name, ALG_ED25519, KEY.public)


def test_a_vkey_of_a_small_order_point_or_unknown_algorithm_is_refused() -> None:
    with pytest.raises(FormatError):
        VerifierKey("a", ALG_ED25519, bytes(32))
    with pytest.raises(FormatError):
        VerifierKey("a", 0x06, KEY.public)
