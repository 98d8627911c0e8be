"""The parts of a refutation file: how bytes, hashes, envelopes and statements stand in its JSON."""

import base64
import binascii
from typing import cast

from attest import canonical
from attest.canonical import JSON
from attest.envelope import Envelope
from attest.errors import FormatError, RefusedError

# What `anh verify` reads at most; tensors take four thirds of their bytes.
MAX_BYTES = 32 << 20


def hold(holds: object, check: str, words: str) -> None:
    """Refuse a refutation unless a condition holds; RefusedError names the check."""
    if not holds:
        raise RefusedError(f"refutation: {check}: {words}", check=check)


def read_object(data: bytes, *, fields: frozenset[str], form: str) -> dict[str, JSON]:
    """Read a file's object of exactly these fields and this format; FormatError for others."""
    value = canonical.decode(data, max_bytes=MAX_BYTES)
    if not isinstance(value, dict) or value.keys() != fields or value["format"] != form:
        raise FormatError(f"refutation: no object of the format {form!r}", code="fields")
    return value


def write_object(value: dict[str, JSON], *, what: str) -> bytes:
    """Write a file's object; FormatError naming `what` is too large where it would not be read."""
    data = canonical.encode(value)
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"refutation: {len(data):,} bytes, more than {MAX_BYTES:,}; {what} too large for a "
            "file",
            code="too large",
        )
    return data


def text(data: bytes) -> str:
    """Write bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def read_bytes(value: JSON, name: str) -> bytes:
    """Read canonical base64; FormatError names the field."""
    if not isinstance(value, str):
        raise FormatError(f"refutation: {name} is not text", code="base64")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"refutation: {name} is broken base64", code="base64") from None
    if text(data) != value:
        raise FormatError(f"refutation: {name} is not canonical base64", code="base64")
    return data


def json_of(data: bytes) -> JSON:
    """Return the value of canonical JSON, to be put into a file as it is."""
    return canonical.decode(data, max_bytes=len(data))


def read_envelope(value: JSON) -> Envelope:
    """Read an envelope; FormatError for any other value."""
    return Envelope.from_bytes(canonical.encode(value))


def read_list(value: JSON, name: str, *, longest: int) -> list[JSON]:
    """Read a list; FormatError names the field."""
    if not isinstance(value, list) or len(value) > longest:
        raise FormatError(f"refutation: {name} is no list of at most {longest}", code="fields")
    return value


def read_count(value: JSON, name: str) -> int:
    """Read a number from 0 on; FormatError names the field."""
    if type(value) is not int or value < 0:
        raise FormatError(f"refutation: {name} is not a count", code="fields")
    return value


def read_hashes(value: JSON, name: str, *, longest: int) -> tuple[bytes, ...]:
    """Read a list of 32-byte hashes in hex; FormatError names the field."""
    return tuple(_hash(node, name) for node in read_list(value, name, longest=longest))


def _hash(value: JSON, name: str) -> bytes:
    try:
        data = bytes.fromhex(cast(str, value))
    except (TypeError, ValueError):
        raise FormatError(f"refutation: {name} holds no hash", code="fields") from None
    if len(data) != 32 or data.hex() != value:
        raise FormatError(f"refutation: {name} holds no hash", code="fields")
    return data
