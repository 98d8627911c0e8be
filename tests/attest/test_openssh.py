import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError
from attest.keys import PrivateKey
from attest.openssh import encode_private_key

# RFC 8032 section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
KEY = PrivateKey(SEED)


@given(
    st.binary(min_size=32, max_size=32),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
)
def test_openssh_text_reads_back_the_same_key(seed: bytes, comment: str) -> None:
    pem = PrivateKey(seed).to_openssh(comment)
    assert PrivateKey.from_openssh(pem).sign(b"m") == PrivateKey(seed).sign(b"m")
    assert max(len(line) for line in pem.splitlines()) <= 70


@pytest.mark.parametrize("comment", ["é", "a\nb", "\x00"])
def test_a_comment_is_printable_ascii(comment: str) -> None:
    with pytest.raises(FormatError):
        KEY.to_openssh(comment)


def test_a_changed_key_file_gives_the_same_key_or_is_refused() -> None:
    pem = KEY.to_openssh("run")
    for i, old in enumerate(pem):
        for new in (old ^ 1, old ^ 2, old ^ 32, old ^ 128, 0, ord("A")):
            try:
                key = PrivateKey.from_openssh(pem[:i] + bytes([new]) + pem[i + 1 :])
            except FormatError:
                continue
            # Only the comment is nobody's business.
            assert key.keyid == KEY.keyid


def test_a_cut_key_file_is_refused() -> None:
    pem = KEY.to_openssh().rstrip(b"\n")
    for cut in range(len(pem)):
        with pytest.raises(FormatError):
            PrivateKey.from_openssh(pem[:cut])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_key(data: bytes) -> None:
    with pytest.raises(FormatError):
        PrivateKey.from_openssh(data)


def test_a_foreign_public_half_is_refused() -> None:
    # Signing with another public key than the seed's leaks the secret scalar.
    pem = encode_private_key(SEED, PrivateKey(bytes(32)).public, "")
    with pytest.raises(FormatError):
        PrivateKey.from_openssh(pem)


def field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def key_file(**changes: bytes) -> bytes:
    """Write the fields of a key file one by one, any of them changed."""
    kind, public = field(b"ssh-ed25519"), KEY.public
    part = {
        "magic": b"openssh-key-v1\x00",
        "cipher": field(b"none"),
        "kdf": field(b"none"),
        "options": field(b""),
        "count": (1).to_bytes(4, "big"),
        "outer": field(kind + field(public)),
        "check1": b"abcd",
        "check2": b"abcd",
        "kind": kind,
        "public": field(public),
        "secret": field(SEED + public),
        "comment": field(b"run"),
        "padding": b"\x01\x02",
        "trailing": b"",
    } | changes
    inner = b"".join(
        part[name]
        for name in ("check1", "check2", "kind", "public", "secret", "comment", "padding")
    )
    part["inner"] = field(inner)
    names = ("magic", "cipher", "kdf", "options", "count", "outer", "inner", "trailing")
    text = base64.b64encode(b"".join(part[name] for name in names))
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\n-----END OPENSSH PRIVATE KEY-----\n"
    return begin + text + end


OTHER = PrivateKey(bytes(32)).public
DAMAGED: dict[str, dict[str, bytes]] = {
    "magic": {"magic": b"openssh-key-v2\x00"},
    "cipher": {"cipher": field(b"aes256-ctr")},
    "key derivation": {"kdf": field(b"bcrypt")},
    "key derivation options": {"options": field(b"x")},
    "two keys": {"count": (2).to_bytes(4, "big")},
    "another outer key": {"outer": field(field(b"ssh-ed25519") + field(OTHER))},
    "another outer kind": {"outer": field(field(b"ssh-rsa") + field(KEY.public))},
    "unequal check integers": {"check2": b"abce"},
    "another kind": {"kind": field(b"ssh-rsa")},
    "another inner key": {"public": field(OTHER)},
    "long inner key": {"public": field(KEY.public + b"x")},
    "short secret": {"secret": field(SEED)},
    "another key beside the seed": {"secret": field(SEED + OTHER)},
    "comment longer than the file": {"comment": (99).to_bytes(4, "big") + b"run"},
    "wrong padding": {"padding": b"\x01\x03"},
    "a block too much padding": {"padding": bytes(range(1, 11))},
    "no padding": {"padding": b""},
    "a whole block of padding": {"padding": bytes(range(1, 9)), "comment": field(b"x" * 5)},
    "trailing bytes": {"trailing": b"x"},
    # 5003 as 3, modulo the block: all is well but the size.
    "too large": {"comment": field(b"x" * 5003)},
}


def test_a_key_file_written_field_by_field_is_read() -> None:
    assert PrivateKey.from_openssh(key_file()).keyid == KEY.keyid
    assert PrivateKey.from_openssh(key_file().replace(b"\n", b"\r\n")).keyid == KEY.keyid


@pytest.mark.parametrize("changes", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_field_is_refused(changes: dict[str, bytes]) -> None:
    with pytest.raises(FormatError):
        PrivateKey.from_openssh(key_file(**changes))


def test_the_length_of_each_part_is_its_own() -> None:
    # A key of 31 bytes beside a secret that ends in the same 31: only its length is wrong.
    short = KEY.public[:31]
    changes = {
        "public": field(short),
        "secret": field(SEED + b"x" + short),
        "outer": field(field(b"ssh-ed25519") + field(short)),
    }
    with pytest.raises(FormatError):
        PrivateKey.from_openssh(key_file(**changes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"BEGIN OPENSSH", b"BEGIN"),
        (b"END OPENSSH", b"END"),
        (b"-----BEGIN", b"x\n-----BEGIN"),
        (b"KEY-----\nb3B", b"KEY-----\n b3B"),
    ],
)
def test_the_frame_of_a_key_file_is_exact(old: bytes, new: bytes) -> None:
    assert old in key_file()
    with pytest.raises(FormatError):
        PrivateKey.from_openssh(key_file().replace(old, new))


def test_spare_bits_of_the_base64_are_zero() -> None:
    pem = next(p for p in (key_file(comment=field(b"x" * n)) for n in range(3)) if b"==\n" in p)
    at = pem.index(b"==\n") - 1
    with pytest.raises(FormatError) as refusal:
        PrivateKey.from_openssh(pem[:at] + bytes([pem[at] + 1]) + pem[at + 1 :])
    assert refusal.value.code == "base64"
