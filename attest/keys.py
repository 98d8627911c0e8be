"""Ed25519 keys, what they may sign, and the two text forms they are kept in.

Every signature in the project is made and checked by libsodium through PyNaCl: Ed25519 verifiers
disagree on low-order points, and a log must not admit what a client refuses.
"""

import base64
import binascii
import enum
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import nacl.bindings
import nacl.exceptions
import nacl.signing

from attest.errors import FormatError, InputError, RefusedError
from attest.openssh import MAX_PEM_BYTES, decode_private_key, encode_private_key

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
ALG_ED25519 = 0x01
ALG_COSIGNATURE = 0x04


class Role(enum.Enum):
    """Name what a key may sign: one key, one role."""

    AUTHOR = "author"
    RUN = "run"
    WORKER = "worker"
    AUDITOR = "auditor"
    MONITOR = "monitor"
    LOG = "log"
    WITNESS = "witness"
    REPORTER = "reporter"
    HOLDER = "holder"
    OWNER = "owner"


def keyid(public: bytes) -> str:
    """Name a public key: hex SHA-256 of its 32 bytes."""
    return hashlib.sha256(public).hexdigest()


def check_public_key(public: bytes) -> bytes:
    """Return a public key that may be registered.

    It must be the canonical encoding of a point of the prime-order subgroup, not the identity:
    with small-order or mixed-order points one signature fits several messages, or only some
    verifiers (RFC 8032 section 5.1.7 leaves them free to differ).

    Raises:
        FormatError: for every other byte string.
    """
    if len(public) != PUBLIC_BYTES:
        raise FormatError(f"public key has {len(public)} bytes, not 32", code="public key")
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(public):
        raise FormatError(
            f"public key {public.hex()} is not a canonical point of prime order; make another key",
            code="public key",
        )
    return public


def verify_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """Check one Ed25519 signature over the exact message bytes.

    Raises:
        RefusedError: if libsodium does not accept it.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        raise RefusedError("public key or signature has a wrong length", check="signature")
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except nacl.exceptions.BadSignatureError:
        raise RefusedError(
            f"signature by key {keyid(public)} does not verify", check="signature"
        ) from None


class PrivateKey:
    """Hold an Ed25519 signing key; its text form never shows the secret and it is never pickled."""

    __slots__ = ("_key", "keyid", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise FormatError(f"private key seed has {len(seed)} bytes, not 32", code="private key")
        self._key = nacl.signing.SigningKey(seed)
        self.public: bytes = bytes(self._key.verify_key)
        self.keyid: str = keyid(self.public)

    @classmethod
    def generate(cls) -> "PrivateKey":
        """Make a new key from the system's randomness."""
        return cls(os.urandom(32))

    @classmethod
    def from_openssh(cls, pem: bytes) -> "PrivateKey":
        """Read an unencrypted OpenSSH Ed25519 private key.

        Raises:
            FormatError: for anything else, and for a public half that is not the seed's own
                (signing with a foreign one would leak the secret).
        """
        seed, public = decode_private_key(pem)
        key = cls(seed)
        if key.public != public:
            raise FormatError(
                "private key file: the public key is not the secret's", code="private key"
            )
        return key

    @classmethod
    def load(cls, path: str | Path) -> "PrivateKey":
        """Read a private key file that only its owner can read.

        Raises:
            InputError: if it is missing, unreadable, or open to others.
            FormatError: if it is no unencrypted OpenSSH Ed25519 key.
        """
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                pem = file.read(MAX_PEM_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read key {path}: {error.strerror}") from None
        # The rule of ssh: a key of ours that others can read is no longer only ours.
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            raise InputError(f"key {path} is open to other users; run `chmod 600 {path}`")
        try:
            return cls.from_openssh(pem)
        except FormatError as error:
            raise FormatError(f"{path}: {error}", code=error.code) from None

    def to_openssh(self, comment: str = "") -> bytes:
        """Write the key as OpenSSH PEM; the comment is printable ASCII."""
        if not (comment.isascii() and comment.isprintable()):
            raise FormatError("key comment must be printable ASCII", code="private key")
        return encode_private_key(bytes(self._key), self.public, comment)

    def save(self, path: str | Path, comment: str = "") -> None:
        """Write a new key file, mode 0600, durable on return; an existing file is never replaced.

        Raises:
            InputError: if the file exists or cannot be written.
        """
        pem = self.to_openssh(comment)
        try:
            _create_private_file(Path(path), pem)
        except OSError as error:
            raise InputError(f"cannot create key {path}: {error.strerror}") from None

    def sign(self, message: bytes) -> bytes:
        """Sign the exact message bytes; returns 64 bytes (RFC 8032 Ed25519)."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return f"PrivateKey(keyid={self.keyid!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled; pass the path of its file")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Name a log's or witness's public key as C2SP signed-note does (vkey)."""

    name: str
    algorithm: int
    public: bytes

    def __post_init__(self) -> None:
        if not (self.name and self.name.isascii() and self.name.isprintable()):
            raise FormatError("vkey name must be printable ASCII", code="vkey")
        if "+" in self.name or " " in self.name:
            raise FormatError(f"vkey name {self.name!r} holds a plus or a space", code="vkey")
        if self.algorithm not in (ALG_ED25519, ALG_COSIGNATURE):
            raise FormatError(f"vkey algorithm {self.algorithm:#04x} is unknown", code="vkey")
        check_public_key(self.public)

    @property
    def key_hash(self) -> bytes:
        """Return the 4-byte key id of signed-note: SHA-256(name || LF || algorithm || key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._tagged()).digest()[:4]

    def to_text(self) -> str:
        """Write `name+hash+base64(algorithm || key)`."""
        return f"{self.name}+{self.key_hash.hex()}+{base64.b64encode(self._tagged()).decode()}"

    @classmethod
    def from_text(cls, text: str) -> "VerifierKey":
        """Read a vkey; its hash must be the right one and its base64 canonical.

        Raises:
            FormatError: for any other text.
        """
        parts = text.split("+", 2)
        try:
            tagged = base64.b64decode(parts[2], validate=True)
        except (IndexError, binascii.Error, ValueError):
            raise FormatError(f"not a vkey: {text[:80]!r}", code="vkey") from None
        if not tagged:
            raise FormatError(f"not a vkey: {text[:80]!r}", code="vkey")
        key = cls(parts[0], tagged[0], tagged[1:])
        if key.to_text() != text:
            raise FormatError(
                f"vkey of {key.name!r}: its hash or base64 is wrong; expected {key.to_text()!r}",
                code="vkey",
            )
        return key

    def _tagged(self) -> bytes:
        return bytes([self.algorithm]) + self.public


def _create_private_file(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()  # half a key is no key
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
