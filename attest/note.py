"""C2SP signed notes (v1.0.0): text that ends in a newline, then signature lines.

What is written here is ASCII apart from the em dash of a signature line; what is read may be any
note of the specification, except that a key known to the caller may sign only once.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from attest.errors import FormatError, RefusedError
from attest.keys import ALG_ED25519, PrivateKey, VerifierKey, verify_signature

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 64
KEY_HASH_BYTES = 4
_DASH = "\N{EM DASH} "

# Checks the signature bytes of one line, without the key hash; raises if they do not hold.
LineCheck = Callable[[bytes], None]


class UnknownLines(enum.Enum):
    """Say what becomes of signature lines by keys that the caller does not know."""

    # The specification's rule: a log may sign with new keys, witnesses come and go.
    IGNORE = "ignore"
    # For files in which every byte counts.
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class KeyName:
    """Name a key as signature lines do: name and 4-byte hash, which also tells the algorithm."""

    name: str
    key_hash: bytes

    @classmethod
    def of(cls, key: VerifierKey) -> KeyName:
        """Return the name of a verifier key."""
        return cls(key.name, key.key_hash)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """Hold one signature line: who, and the bytes after the key hash."""

    signer: KeyName
    data: bytes

    def to_line(self) -> str:
        """Write the line, with its newline."""
        blob = base64.b64encode(self.signer.key_hash + self.data).decode()
        return f"{_DASH}{self.signer.name} {blob}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """Hold a text (with its final newline) and the signature lines below it, unverified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """Write the note; `Note.from_bytes(x).to_bytes() == x` holds."""
        return (self.text + "\n" + "".join(s.to_line() for s in self.signatures)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Note:
        """Read a note without verifying it.

        Raises:
            FormatError: if the bytes are no note in its one spelling.
        """
        if len(data) > MAX_NOTE_BYTES:
            raise FormatError(f"note is {len(data)} bytes, more than {MAX_NOTE_BYTES}", code="note")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError("note is not UTF-8", code="note") from None
        if any(c < " " and c != "\n" for c in whole):
            raise FormatError("note holds a control character", code="note")
        # The text may hold empty lines: the last one separates.
        body, separator, lines = whole.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise FormatError("note has no signature lines", code="note")
        rows = lines[:-1].split("\n")
        if len(rows) > MAX_SIGNATURES:
            raise FormatError(f"note has more than {MAX_SIGNATURES} signatures", code="note")
        return cls(body + "\n", tuple(parse_signature_line(row) for row in rows))

    def signed_only(self, signers: Collection[KeyName]) -> Note:
        """Return the note without the lines of all others."""
        kept = tuple(line for line in self.signatures if line.signer in signers)
        return Note(self.text, kept)

    def signed_also(self, signature: NoteSignature) -> Note:
        """Return the note with one more signature line."""
        return Note(self.text, (*self.signatures, signature))


def parse_signature_line(line: str) -> NoteSignature:
    """Read one signature line, without its newline.

    Raises:
        FormatError: for anything else.
    """
    name, space, blob = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise FormatError(f"not a signature line: {line[:80]!r}", code="signature line")
    if not name or "+" in name or any(c.isspace() for c in name):
        raise FormatError(f"not a key name: {name[:80]!r}", code="signature line")
    data = decode_base64(blob)
    if len(data) <= KEY_HASH_BYTES:
        raise FormatError(f"signature of {name[:80]!r} is empty", code="signature line")
    return NoteSignature(KeyName(name, data[:KEY_HASH_BYTES]), data[KEY_HASH_BYTES:])


def sign_note(text: str, name: str, key: PrivateKey) -> Note:
    """Sign a text, ending in a newline, as key name `name` (algorithm 0x01).

    Raises:
        FormatError: if the text cannot be a note's.
    """
    signer = KeyName.of(VerifierKey(name, ALG_ED25519, key.public))
    try:
        signature = NoteSignature(signer, key.sign(text.encode()))
    except UnicodeEncodeError:
        raise FormatError("note text has no UTF-8 form", code="note") from None
    note = Note(text, (signature,))
    # What no reader would accept is not handed out.
    if Note.from_bytes(note.to_bytes()) != note:
        raise FormatError("note text must end in a newline", code="note")
    return note


def verify_note(
    note: Note, checks: Mapping[KeyName, LineCheck], unknown: UnknownLines
) -> frozenset[KeyName]:
    """Check every line by a key that `checks` names; return whose lines hold.

    Raises:
        RefusedError: if a named key's line does not hold or is there twice, if no named key has
            signed, or, where they are refused, for a line by any other key.
    """
    held: set[KeyName] = set()
    for signature in note.signatures:
        signer = signature.signer
        if signer in held:
            raise RefusedError(f"note is signed twice by {signer.name}", check="note signature")
        if check := checks.get(signer):
            check(signature.data)
            held.add(signer)
        elif unknown is UnknownLines.REFUSE:
            raise RefusedError(
                f"note has a line by {signer.name}+{signer.key_hash.hex()}, which nothing names",
                check="unknown signature",
            )
    if not held:
        raise RefusedError("note is not signed by any known key", check="note signature")
    return frozenset(held)


def text_check(text: str, key: VerifierKey) -> LineCheck:
    """Return the check of a plain Ed25519 line (algorithm 0x01) over the note's text."""
    if key.algorithm != ALG_ED25519:
        raise FormatError(f"key {key.name} is no note key (algorithm 0x01)", code="vkey")

    def check(data: bytes) -> None:
        try:
            verify_signature(key.public, text.encode(), data)
        except RefusedError:
            raise RefusedError(
                f"signature by {key.name} on the note does not verify", check="note signature"
            ) from None

    return check


def decode_base64(text: str) -> bytes:
    """Read standard base64 in its one spelling.

    Raises:
        FormatError: for anything else; Python alone would ignore unused low bits.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"not base64: {text[:80]!r}", code="base64") from None
    if base64.b64encode(data).decode() != text:
        raise FormatError(f"base64 is not canonical: {text[:80]!r}", code="base64")
    return data
