"""What those who watch say: status, held, conflict, key event."""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from attest.canonical import JSON
from attest.envelope import Envelope
from attest.errors import FormatError
from attest.keys import Role, keyid
from attest.schema import (
    Count,
    Elsewhere,
    Hex64,
    Indices,
    KeyRole,
    OptionalPublicKey,
    PublicKey,
    Rule,
    Text,
    Utc,
    built,
    listed,
    one_of,
    refuse,
)
from attest.statements.subject import DATA, RECORD, SHA256, STATE, LogHead, Subject, SubjectDigest


@dataclass(frozen=True, slots=True)
class RunEntries:
    """List the log indices of one run's statements."""

    run: Hex64
    genesis: Count
    attempts: Indices
    finals: Indices
    intents: Indices
    audits: Indices
    properties: Indices
    conflicts: Indices

    def last(self) -> int:
        """Return the largest index listed."""
        lists = (self.attempts, self.finals, self.intents, self.audits)
        tails = (*lists, self.properties, self.conflicts)
        return max([self.genesis, *(indices[-1] for indices in tails if indices)])


@dataclass(frozen=True, slots=True)
class Status:
    """List everything a log holds under a contract, as of one size and root."""

    KIND: ClassVar[str] = "status"

    contract: SubjectDigest
    monitor: Text
    log: LogHead
    runs: Annotated[tuple[RunEntries, ...], listed(built(RunEntries))]
    contract_intents: Indices
    key_events: Indices

    def __post_init__(self) -> None:
        starts = [run.genesis for run in self.runs]
        if any(a >= b for a, b in zip(starts, starts[1:], strict=False)):
            raise FormatError("status.runs: must be sorted by genesis index", code="field")
        if len({run.run for run in self.runs}) != len(starts):
            raise FormatError("status.runs: a run is listed twice", code="field")
        ends = [run.last() for run in self.runs]
        for indices in (self.contract_intents, self.key_events):
            ends.extend(indices[-1:])
        if any(end >= self.log.size for end in ends):
            raise FormatError("status.runs: an index is past the log's size", code="field")

    def subjects(self) -> tuple[Subject, ...]:
        """Name the contract."""
        return (Subject("contract", SHA256, self.contract),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the contract id."""
        return {"contract": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Held:
    """Promise to keep a state or data set until a time (UTC)."""

    KIND: ClassVar[str] = "held"

    what: Annotated[str, Elsewhere()]
    root: SubjectDigest
    holder: Text
    until: Utc

    def __post_init__(self) -> None:
        if self.what not in ("state", "data"):
            raise FormatError("held.subject: is neither state nor data", code="field")

    def subjects(self) -> tuple[Subject, ...]:
        """Name the state or data root."""
        return (Subject(self.what, STATE if self.what == "state" else DATA, self.root),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take what is held."""
        return {"what": subjects[0].name, "root": subjects[0].digest}


def _load_envelope(value: JSON, where: str) -> Envelope:
    if not isinstance(value, str):
        raise refuse(where, "an envelope in base64", value)
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise refuse(where, "an envelope in base64", value) from None
    if base64.b64encode(data).decode() != value:
        raise refuse(where, "canonical base64", value)
    try:
        return Envelope.from_bytes(data)
    except FormatError as error:
        raise FormatError(f"{where}: {error}", code=error.code) from None


# Workers are vouched for by each attempt's run key; logs and witnesses are named by policies alone.
_OWNED_ROLES = (Role.AUTHOR, Role.RUN, Role.AUDITOR, Role.MONITOR, Role.REPORTER, Role.HOLDER)
_ENVELOPE = Rule(_load_envelope, lambda e: base64.b64encode(e.to_bytes()).decode())


@dataclass(frozen=True, slots=True)
class Conflict:
    """Show two envelopes that cannot both be honest, the smaller record hash first.

    Whether they conflict is for the reader to judge: the statement only carries them.
    """

    KIND: ClassVar[str] = "conflict"

    first: Annotated[Envelope, _ENVELOPE]
    second: Annotated[Envelope, _ENVELOPE]

    def __post_init__(self) -> None:
        if self.first.record_hash() >= self.second.record_hash():
            raise FormatError(
                "conflict.second: must be another record, with the larger hash", code="field"
            )

    def subjects(self) -> tuple[Subject, ...]:
        """Name both records."""
        return (
            Subject("first", RECORD, self.first.record_hash().hex()),
            Subject("second", RECORD, self.second.record_hash().hex()),
        )


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """Endorse, rotate or revoke a key for one role, from an index of the log `origin` on.

    Rotating ends `key` and lets `successor` sign in its place. The owner's offline key signs; a key
    that begins (`newcomer`) signs too, so that nobody takes a stranger's key for his own.
    """

    KIND: ClassVar[str] = "key-event"

    action: Annotated[str, one_of("endorse", "rotate", "revoke")]
    key: PublicKey
    role: KeyRole
    origin: Text
    index: Count
    owner: PublicKey
    successor: OptionalPublicKey

    def __post_init__(self) -> None:
        if self.role not in _OWNED_ROLES:
            raise FormatError(f"key-event.role: {self.role} keys have no owner", code="field")
        if (self.action == "rotate") != (self.successor is not None):
            raise FormatError("key-event.successor: is for rotate, and only then", code="field")
        if len({self.key, self.owner, self.successor}) != 3:
            raise FormatError("key-event.key: owner and successor are other keys", code="field")

    @property
    def newcomer(self) -> str | None:
        """Return the public key that may sign by this event, None if it only ends one."""
        return self.key if self.action == "endorse" else self.successor

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Return the public keys that must sign: the owner's, and the newcomer if there is one."""
        keys = (self.owner,) if self.newcomer is None else (self.owner, self.newcomer)
        return tuple(bytes.fromhex(key) for key in keys)

    @property
    def ended(self) -> str | None:
        """Return the public key that may no longer sign by this event, None if it ends none."""
        return None if self.action == "endorse" else self.key

    def subjects(self) -> tuple[Subject, ...]:
        """Name the key by its keyid, the SHA-256 of its bytes."""
        return (Subject("key", SHA256, keyid(bytes.fromhex(self.key))),)
