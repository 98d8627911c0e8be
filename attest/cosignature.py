"""C2SP tlog-cosignature (v1.0.1, Ed25519): a witness's dated line under a log's checkpoint.

It says: at this time, this was the largest tree of the log that I saw, and it extends all I saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attest.checkpoint import Checkpoint, of_log
from attest.errors import FormatError, RefusedError
from attest.keys import (
    ALG_COSIGNATURE,
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    PrivateKey,
    VerifierKey,
    verify_signature,
)
from attest.note import (
    KeyName,
    LineCheck,
    Note,
    NoteSignature,
    UnknownLines,
    text_check,
    verify_note,
)

_TIME_BYTES = 8
_MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cosignature:
    """Hold a verified cosignature: the witness's key, and its time in seconds since 1970."""

    witness: VerifierKey
    time: int


@dataclass(frozen=True, slots=True)
class CosignedCheckpoint:
    """Hold a verified head with the cosignatures of known witnesses, in the order asked for."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]


def cosign(text: str, name: str, key: PrivateKey, time: int) -> NoteSignature:
    """Cosign a checkpoint's text as witness `name` at `time` (seconds since 1970)."""
    signer = KeyName.of(VerifierKey(name, ALG_COSIGNATURE, key.public))
    signature = key.sign(_message(text, _check_time(time)))
    return NoteSignature(signer, time.to_bytes(_TIME_BYTES, "big") + signature)


def open_cosigned(
    data: bytes,
    log: VerifierKey,
    witnesses: Sequence[VerifierKey],
    unknown: UnknownLines = UnknownLines.IGNORE,
) -> CosignedCheckpoint:
    """Read a checkpoint signed by this log, with what the named witnesses say of it.

    How many witnesses are enough is the caller's policy.

    Raises:
        FormatError: if the bytes are no checkpoint, or two witnesses share a key.
        RefusedError: if the log's signature is missing, or any named key's line does not hold.
    """
    # The signed message does not name the cosigner, so one key under two names would count twice.
    if len({key.public for key in (log, *witnesses)}) != 1 + len(witnesses):
        raise FormatError("log and witnesses must all have different keys", code="vkey")
    note = Note.from_bytes(data)
    checks = {KeyName.of(log): text_check(note.text, log)}
    checks |= {KeyName.of(key): _line_check(note.text, key) for key in witnesses}
    held = verify_note(note, checks, unknown)
    if KeyName.of(log) not in held:
        raise RefusedError(f"checkpoint is not signed by log {log.name}", check="log signature")
    lines = {line.signer: line.data for line in note.signatures}
    cosignatures = tuple(
        Cosignature(key, _time_of(lines[KeyName.of(key)]))
        for key in witnesses
        if KeyName.of(key) in held
    )
    return CosignedCheckpoint(of_log(note, log), cosignatures)


def _line_check(text: str, key: VerifierKey) -> LineCheck:
    if key.algorithm != ALG_COSIGNATURE or len(key.public) != PUBLIC_BYTES:
        raise FormatError(f"key {key.name} is no witness key (algorithm 0x04)", code="vkey")

    def check(data: bytes) -> None:
        try:
            verify_signature(key.public, _message(text, _time_of(data)), data[_TIME_BYTES:])
        except RefusedError:
            raise RefusedError(
                f"cosignature by {key.name} does not verify", check="cosignature"
            ) from None

    return check


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _time_of(data: bytes) -> int:
    if len(data) != _TIME_BYTES + SIGNATURE_BYTES:
        raise FormatError("cosignature is not a time and 64 bytes", code="cosignature")
    return _check_time(int.from_bytes(data[:_TIME_BYTES], "big"))


def _check_time(time: int) -> int:
    # Zero would be "no statement about time", which no verifier of ours has a use for.
    if not 0 < time <= _MAX_TIME:
        raise FormatError(f"cosignature time {time} is out of range", code="cosignature")
    return time
