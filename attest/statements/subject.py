"""What a statement is about: in-toto subjects, and the log head several statements quote."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from attest.canonical import JSON
from attest.schema import HEX64, Count, Elsewhere, Hex64, Rule, Text, refuse, text

STATE = "anhStateV1"
GRADIENT = "anhGradientV1"
RECORD = "anhRecordV1"
DATA = "anhDataV1"
# Only for what is the plain SHA-256 of bytes: foreign tools match subjects by this digest.
SHA256 = "sha256"

# A digest that is the statement's subject, and so is not repeated in its predicate.
SubjectDigest: TypeAlias = Annotated[str, Elsewhere()]

_NAME = text()


@dataclass(frozen=True, slots=True)
class Subject:
    """Name one thing by one digest of 64 hex digits."""

    name: str
    algorithm: str
    digest: str


def _load(value: JSON, where: str) -> Subject:
    if not isinstance(value, dict) or value.keys() != {"digest", "name"}:
        raise refuse(where, "an object of exactly digest and name", value)
    digest = value["digest"]
    if not isinstance(digest, dict) or len(digest) != 1:
        raise refuse(f"{where}.digest", "an object of one digest", digest)
    ((algorithm, text),) = digest.items()
    name = _NAME.load(value["name"], f"{where}.name")
    return Subject(name, algorithm, HEX64.load(text, f"{where}.digest"))


def _dump(subject: Subject) -> JSON:
    return {"digest": {subject.algorithm: subject.digest}, "name": subject.name}


SUBJECT = Rule(_load, _dump)


@dataclass(frozen=True, slots=True)
class LogHead:
    """Name a log at one size: origin, number of entries, root (RFC 6962, hex)."""

    origin: Text
    size: Count
    root: Hex64
