"""C2SP tlog-witness over a wire: the body of add-checkpoint, and where a newest head is shown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from attest.errors import FormatError
from attest.merkle import HASH_BYTES
from attest.note import NoteSignature, decode_base64, parse_signature_line

ADD_CHECKPOINT = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
MAX_REQUEST_BYTES = 256 << 10
MAX_PROOF_LINES = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """Hold a request: the size that the witness is believed to be at, the proof, and the note."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """Write the request's body."""
        lines = [f"old {self.old}", *(base64.b64encode(p).decode() for p in self.proof), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def from_bytes(cls, data: bytes) -> AddCheckpoint:
        """Read a request's body.

        Raises:
            FormatError: if it is none, in its one spelling.
        """
        head, separator, note = data.partition(b"\n\n")
        if len(data) > MAX_REQUEST_BYTES or not separator or not head.isascii():
            raise FormatError("no add-checkpoint request", code="request")
        first, *lines = head.decode("ascii").split("\n")
        old = _OLD.fullmatch(first)
        if old is None or len(lines) > MAX_PROOF_LINES:
            raise FormatError("add-checkpoint: no old size, or too long a proof", code="request")
        proof = tuple(decode_base64(line) for line in lines)
        if any(len(value) != HASH_BYTES for value in proof):
            raise FormatError("add-checkpoint: a proof line has not 32 bytes", code="request")
        return cls(int(old[1]), proof, note)


def encode_lines(signatures: Sequence[NoteSignature]) -> bytes:
    """Write the answer of a witness that cosigned."""
    return "".join(signature.to_line() for signature in signatures).encode()


def decode_lines(data: bytes) -> list[NoteSignature]:
    """Read the answer of a witness that cosigned.

    Raises:
        FormatError: if there are no signature lines.
    """
    try:
        *lines, rest = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise FormatError("the witness's answer is not UTF-8", code="signature line") from None
    if rest or not lines:
        raise FormatError("the witness's answer is not lines", code="signature line")
    return [parse_signature_line(line) for line in lines]


def encode_size(size: int) -> bytes:
    """Write the answer of a witness that is at another size."""
    return b"%d\n" % size


def decode_size(data: bytes) -> int:
    """Read the size at which a witness says that it is.

    Raises:
        FormatError: if it says none.
    """
    match = _SIZE.fullmatch(data)
    if match is None:
        raise FormatError("the witness says no size", code="size")
    return int(match[1])


def log_name(origin: str) -> str:
    """Name a log in a witness's paths: hex SHA-256 of its origin."""
    return hashlib.sha256(origin.encode()).hexdigest()
