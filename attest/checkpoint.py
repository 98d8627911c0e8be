"""C2SP tlog-checkpoint (v1.0.0): a log's signed head, which is a note of three lines.

Extension lines are refused: no monitor can audit them.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from attest.errors import FormatError, RefusedError
from attest.keys import PrivateKey, VerifierKey
from attest.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from attest.note import (
    KeyName,
    Note,
    UnknownLines,
    decode_base64,
    sign_note,
    text_check,
    verify_note,
)

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Name the tree of a log at one size: origin, number of leaves, 32-byte root."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or any(c < " " for c in self.origin):
            raise FormatError("checkpoint origin is empty or has control bytes", code="checkpoint")
        if not 0 <= self.size <= MAX_SIZE:
            raise FormatError(f"checkpoint size {self.size} is out of range", code="checkpoint")
        if len(self.root) != HASH_BYTES:
            raise FormatError("checkpoint root has not 32 bytes", code="checkpoint")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise FormatError("checkpoint of size 0 has another root", code="checkpoint")

    def to_text(self) -> str:
        """Write the three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Read the three lines in their one spelling.

        Raises:
            FormatError: for anything else.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise FormatError("checkpoint is not three lines", code="checkpoint")
        if not _SIZE.fullmatch(lines[1]):
            raise FormatError(f"checkpoint size is {lines[1][:40]!r}", code="checkpoint")
        return cls(lines[0], int(lines[1]), decode_base64(lines[2]))


def sign_checkpoint(checkpoint: Checkpoint, key: PrivateKey) -> Note:
    """Sign a head as its log, whose key name is the origin."""
    return sign_note(checkpoint.to_text(), checkpoint.origin, key)


def open_checkpoint(
    data: bytes, log: VerifierKey, unknown: UnknownLines = UnknownLines.IGNORE
) -> Checkpoint:
    """Read a checkpoint that this log has signed.

    Raises:
        FormatError: if the bytes are no checkpoint.
        RefusedError: if the log's signature is missing or wrong, or the origin is another log's.
    """
    note = Note.from_bytes(data)
    verify_note(note, {KeyName.of(log): text_check(note.text, log)}, unknown)
    return of_log(note, log)


def of_log(note: Note, log: VerifierKey) -> Checkpoint:
    """Read a note's text as a head of this log; the signatures are the caller's to check."""
    checkpoint = Checkpoint.from_text(note.text)
    # One key may sign for one origin: else a signature could move from one log to another.
    if checkpoint.origin != log.name:
        raise RefusedError(
            f"checkpoint is of log {checkpoint.origin!r}, not of {log.name!r}", check="origin"
        )
    return checkpoint
