"""Key events as files: signed where the owner's offline key is, and logged from elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from attest.durable_file import read_file, replace_file
from attest.envelope import MAX_ENVELOPE_BYTES, Envelope, Signature, pae, sign
from attest.keys import PrivateKey, Role
from attest.statements import KeyEvent, decode_statement, encode_statement
from launch.errors import CommandError
from launch.key_home import find_key


@dataclass(frozen=True, slots=True)
class Request:
    """What an owner says: `action` on `key` (64 hex digits or one's own key), from an index on."""

    action: str
    key: str
    role: Role
    origin: str
    index: int
    successor: str | None = None


def write_event(request: Request, owner: str, out: Path) -> Envelope:
    """Sign a key event with the owner's key into a new file.

    A key of one's own that begins by it signs at once; of a public half somebody else has to.
    Raises CommandError where the file exists or a key is neither hex digits nor one's own.
    """
    if out.exists():
        raise CommandError(f"{out}: exists; name a new file")
    key, successor = public_half(request.key), None
    if request.successor is not None:
        successor = public_half(request.successor)
    offline = find_key(owner)
    event = KeyEvent(
        request.action,
        key,
        request.role,
        request.origin,
        request.index,
        offline.public.hex(),
        successor,
    )
    envelope = sign(encode_statement(event), [offline])
    newcomer = request.successor if successor is not None else request.key
    if event.newcomer is not None and not _is_public(newcomer or ""):
        envelope = _signed_beside(envelope, find_key(newcomer or ""))
    replace_file(out, envelope.to_bytes())
    return envelope


def accept_event(path: Path, name: str) -> Envelope:
    """Add the signature of the key that begins; raises CommandError for another key."""
    envelope, event = read_event(path)
    key = find_key(name)
    if event.newcomer != key.public.hex():
        raise CommandError(f"{path}: lets no key {key.public.hex()} sign; name the key it is about")
    if all(signature.keyid != key.keyid for signature in envelope.signatures):
        envelope = _signed_beside(envelope, key)
        replace_file(path, envelope.to_bytes())
    return envelope


def read_event(path: Path) -> tuple[Envelope, KeyEvent]:
    """Read a key event's file; raises CommandError if it is none."""
    envelope = Envelope.from_bytes(read_file(path, MAX_ENVELOPE_BYTES))
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, KeyEvent):
        raise CommandError(f"{path}: is a {statement.KIND}, no key event")
    return envelope, statement


def missing_signature(envelope: Envelope, event: KeyEvent) -> bool:
    """Tell whether the key that begins by an event has yet to sign it."""
    return len(envelope.signatures) < len(event.signers)


def public_half(text: str) -> str:
    """Return a public key as 64 hex digits: the text itself, or of the key that it names."""
    return text if _is_public(text) else find_key(text).public.hex()


def _is_public(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _signed_beside(envelope: Envelope, key: PrivateKey) -> Envelope:
    signature = Signature(key.keyid, key.sign(pae(envelope.payload)))
    ordered = sorted((*envelope.signatures, signature), key=lambda s: s.keyid)
    return Envelope(envelope.payload, tuple(ordered))
