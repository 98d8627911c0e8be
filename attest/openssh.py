"""The OpenSSH private key file (`openssh-key-v1`), for one unencrypted Ed25519 key."""

import base64
import binascii
import hashlib

from attest.errors import FormatError

_BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----"
_END = "-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\x00"
_TYPE = b"ssh-ed25519"
_BLOCK = 8
_LINE = 70
MAX_PEM_BYTES = 4096


def encode_private_key(seed: bytes, public: bytes, comment: str) -> bytes:
    """Write a 32-byte Ed25519 seed as OpenSSH PEM, unencrypted.

    Source: OpenSSH PROTOCOL.key. The check integers, random there, guard a passphrase that is not
    used here; taken from the seed, the same key gives the same file.
    """
    check = hashlib.sha256(b"anh v1 openssh check\x00" + seed).digest()[:4]
    inner = check + check + _string(_TYPE) + _string(public) + _string(seed + public)
    inner += _string(comment.encode("ascii"))
    inner += bytes(range(1, 1 + -len(inner) % _BLOCK))
    blob = _MAGIC + _string(b"none") + _string(b"none") + _string(b"") + (1).to_bytes(4, "big")
    blob += _string(_public_blob(public)) + _string(inner)
    text = base64.b64encode(blob).decode()
    lines = [text[i : i + _LINE] for i in range(0, len(text), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()


def decode_private_key(pem: bytes) -> tuple[bytes, bytes]:
    """Read (seed, public key) from OpenSSH PEM; the caller checks that they belong together.

    Raises:
        FormatError: for another format, cipher or key type, and for any damage.
    """
    reader = _Reader(_unwrap(pem))
    reader.expect(_MAGIC, "the openssh-key-v1 mark")
    if reader.string() != b"none" or reader.string() != b"none" or reader.string() != b"":
        raise FormatError(
            "private key is encrypted; remove the passphrase with `ssh-keygen -p`",
            code="encrypted key",
        )
    reader.expect((1).to_bytes(4, "big"), "exactly one key")
    outer_public = reader.string()
    secret_part = reader.string()
    reader.end()
    inner = _Reader(secret_part)
    check = inner.take(4)
    inner.expect(check, "equal check integers")
    inner.expect(_string(_TYPE), "an ssh-ed25519 key")
    public = inner.string()
    secret = inner.string()
    inner.string()  # the comment
    padding = inner.rest()
    # The shortest run of 1, 2, 3... that fills the last block.
    if len(secret_part) % _BLOCK or padding != bytes(range(1, _BLOCK))[: len(padding)]:
        raise FormatError("private key file: wrong padding", code="private key")
    if len(secret) != 64 or secret[32:] != public:
        raise FormatError("private key file: wrong key length", code="private key")
    if outer_public != _public_blob(public):
        raise FormatError("private key file: two different public keys", code="private key")
    return secret[:32], public


def _unwrap(pem: bytes) -> bytes:
    if len(pem) > MAX_PEM_BYTES or not pem.isascii():
        raise FormatError("not an OpenSSH private key file", code="private key")
    lines = pem.decode("ascii").replace("\r\n", "\n").rstrip("\n").split("\n")
    if lines[0] != _BEGIN or lines[-1] != _END:
        raise FormatError(f"not an OpenSSH private key file: no {_BEGIN!r}", code="private key")
    text = "".join(lines[1:-1])
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("private key file: broken base64", code="base64") from None
    if base64.b64encode(blob).decode() != text:
        raise FormatError("private key file: base64 is not canonical", code="base64")
    return blob


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _public_blob(public: bytes) -> bytes:
    return _string(_TYPE) + _string(public)


class _Reader:
    """Take fields from the front of a byte string."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise FormatError("private key file: cut short", code="private key")
        self._at += count
        return piece

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))

    def expect(self, data: bytes, what: str) -> None:
        if self.take(len(data)) != data:
            raise FormatError(f"private key file: expected {what}", code="private key")

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise FormatError("private key file: trailing bytes", code="private key")
