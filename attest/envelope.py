"""The signed record: a DSSE v1 envelope with an in-toto payload, in one canonical spelling.

Source: DSSE protocol v1.0.2. A record's name is the hash of its payload, never of the envelope:
Ed25519 signatures are not unique, so the same record has many valid envelopes.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attest import canonical
from attest.errors import FormatError, RefusedError
from attest.keys import SIGNATURE_BYTES, PrivateKey, keyid, verify_signature

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "PAYLOAD_TYPE",
    "Envelope",
    "Signature",
    "keyid",
    "pae",
    "record_hash",
    "row_hash",
    "sign",
    "verify_signatures",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
# An entry of a C2SP log bundle carries its length in 16 bits.
MAX_ENVELOPE_BYTES = 65_535
_KEYID = re.compile(r"[0-9a-f]{64}")


def pae(payload: bytes) -> bytes:
    """Frame a payload as signed: DSSE pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def record_hash(payload: bytes) -> bytes:
    """Name a record: SHA-256("anh v1 record" || 0x00 || payload), 32 bytes."""
    return hashlib.sha256(b"anh v1 record\x00" + payload).digest()


def row_hash(row: bytes) -> bytes:
    """Name a step's row: SHA-256("anh v1 row" || 0x00 || canonical row bytes), 32 bytes."""
    return hashlib.sha256(b"anh v1 row\x00" + row).digest()


@dataclass(frozen=True, slots=True)
class Signature:
    """Hold one signature; `keyid` is the hex SHA-256 of the public key, `sig` has 64 bytes."""

    keyid: str
    sig: bytes

    def __post_init__(self) -> None:
        if not _KEYID.fullmatch(self.keyid):
            raise FormatError("envelope: keyid is not 64 lower-case hex digits", code="keyid")
        if len(self.sig) != SIGNATURE_BYTES:
            raise FormatError("envelope: a signature has not 64 bytes", code="signature length")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Hold a payload and its signatures, at least one, strictly sorted by keyid."""

    payload: bytes
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        ids = [signature.keyid for signature in self.signatures]
        if not ids:
            raise FormatError("envelope: no signature", code="no signature")
        if any(a >= b for a, b in zip(ids, ids[1:], strict=False)):
            raise FormatError(
                "envelope: signatures must be sorted by keyid, one per key", code="signature order"
            )

    def to_bytes(self) -> bytes:
        """Write the log leaf: compact canonical JSON, at most 65,535 bytes.

        Raises:
            FormatError: if it is larger.
        """
        signatures: list[canonical.JSON] = [
            {"keyid": s.keyid, "sig": _base64(s.sig)} for s in self.signatures
        ]
        data = canonical.encode(
            {
                "payload": _base64(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": signatures,
            }
        )
        if len(data) > MAX_ENVELOPE_BYTES:
            raise FormatError(
                f"envelope is {len(data)} bytes, more than {MAX_ENVELOPE_BYTES}", code="too large"
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Envelope":
        """Read a log leaf; `Envelope.from_bytes(x).to_bytes() == x` holds.

        Raises:
            FormatError: for any other spelling, field, payload type or order.
        """
        value = canonical.decode(data, max_bytes=MAX_ENVELOPE_BYTES, max_depth=3)
        top = _fields(value, {"payload", "payloadType", "signatures"})
        if top["payloadType"] != PAYLOAD_TYPE:
            raise FormatError(f"envelope: payloadType is not {PAYLOAD_TYPE}", code="payload type")
        items = top["signatures"]
        if not isinstance(items, list):
            raise FormatError("envelope: signatures is not a list", code="signatures")
        return cls(_unbase64(top["payload"]), tuple(_signature(item) for item in items))

    def record_hash(self) -> bytes:
        """Name the record inside: its payload's hash, whoever signed it."""
        return record_hash(self.payload)


def sign(payload: bytes, signing_keys: Iterable[PrivateKey]) -> Envelope:
    """Sign a payload with every given key.

    Raises:
        FormatError: if no key is given or one is given twice.
    """
    message = pae(payload)
    signatures = [Signature(key.keyid, key.sign(message)) for key in signing_keys]
    return Envelope(payload, tuple(sorted(signatures, key=lambda s: s.keyid)))


def verify_signatures(envelope: Envelope, public_keys: Mapping[str, bytes]) -> None:
    """Check that exactly the given keys (keyid -> 32 bytes) signed: each validly, none besides.

    Raises:
        RefusedError: for a missing, foreign or invalid signature, and for an empty key set.
    """
    signers = {signature.keyid for signature in envelope.signatures}
    if missing := sorted(public_keys.keys() - signers):
        raise RefusedError(f"record lacks the signature of key {missing[0]}", check="signers")
    if extra := sorted(signers - public_keys.keys()):
        raise RefusedError(f"record is signed by key {extra[0]}, not asked to", check="signers")
    message = pae(envelope.payload)
    for signature in envelope.signatures:
        public = public_keys[signature.keyid]
        if keyid(public) != signature.keyid:
            raise RefusedError(f"keyid {signature.keyid} is not its key's hash", check="signers")
        verify_signature(public, message, signature.sig)


def _signature(value: canonical.JSON) -> Signature:
    fields = _fields(value, {"keyid", "sig"})
    name = fields["keyid"]
    if not isinstance(name, str):
        raise FormatError("envelope: keyid is not text", code="keyid")
    return Signature(name, _unbase64(fields["sig"]))


def _fields(value: canonical.JSON, names: set[str]) -> dict[str, canonical.JSON]:
    if not isinstance(value, dict) or value.keys() != names:
        raise FormatError(
            f"envelope: expected an object of exactly {', '.join(sorted(names))}", code="fields"
        )
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: canonical.JSON) -> bytes:
    if not isinstance(text, str):
        raise FormatError("envelope: base64 is not text", code="base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("envelope: broken base64", code="base64") from None
    # Python ignores the unused low bits before the padding: two spellings of one byte string.
    if _base64(data) != text:
        raise FormatError("envelope: base64 is not canonical", code="base64")
    return data
