"""Statements as bytes: in-toto Statement v1, canonical JSON, one dataclass per predicate type."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from attest import canonical
from attest.canonical import JSON
from attest.envelope import MAX_ENVELOPE_BYTES
from attest.errors import FormatError
from attest.schema import listed, record, refuse
from attest.statements.auditing import Audit, Intent, Nonce, Property
from attest.statements.monitoring import Conflict, Held, KeyEvent, Status
from attest.statements.subject import SUBJECT, Subject
from attest.statements.training import (
    Attempt,
    ContractStatement,
    Final,
    Genesis,
    Segment,
    Step,
)

Statement: TypeAlias = (
    ContractStatement
    | Genesis
    | Attempt
    | Step
    | Segment
    | Final
    | Intent
    | Nonce
    | Audit
    | Property
    | Status
    | Held
    | Conflict
    | KeyEvent
)

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://anh-jax.dev/attest/{}/v1"
_KINDS: tuple[type[Statement], ...] = (
    ContractStatement,
    Genesis,
    Attempt,
    Step,
    Segment,
    Final,
    Intent,
    Nonce,
    Audit,
    Property,
    Status,
    Held,
    Conflict,
    KeyEvent,
)
_BY_TYPE = {_PREDICATE_TYPE.format(cls.KIND): (cls, record(cls)) for cls in _KINDS}
_Carried: TypeAlias = Callable[[tuple[Subject, ...]], dict[str, Any]]
_CARRIED: dict[str, _Carried | None] = {
    uri: getattr(cls, "from_subjects", None) for uri, (cls, _) in _BY_TYPE.items()
}
_TOP = frozenset({"_type", "predicate", "predicateType", "subject"})
_SUBJECTS = listed(SUBJECT, least=1)


def predicate_type(kind: type[Statement]) -> str:
    """Return the predicate type URI of a statement class."""
    return _PREDICATE_TYPE.format(kind.KIND)


def encode_statement(statement: Statement) -> bytes:
    """Write a statement as the payload to sign.

    Raises:
        FormatError: naming the field, if `decode_statement` would not read it back as it is.
    """
    uri = predicate_type(type(statement))
    try:
        value: JSON = {
            "_type": STATEMENT_TYPE,
            "predicate": _BY_TYPE[uri][1].dump(statement),
            "predicateType": uri,
            "subject": _SUBJECTS.dump(statement.subjects()),
        }
    except (AttributeError, TypeError) as error:
        raise FormatError(f"{statement.KIND}: wrong Python type: {error}", code="type") from None
    again = _load(value)
    if again != statement:
        names = type(statement).__annotations__
        wrong = (n for n in names if getattr(again, n) != getattr(statement, n))
        raise FormatError(f"{statement.KIND}.{next(wrong)}: wrong Python type", code="type")
    return canonical.encode(value)


def decode_statement(payload: bytes) -> Statement:
    """Read a signed payload as one of the statement classes.

    Raises:
        FormatError: for any other bytes, naming the field that is wrong.
    """
    return _load(canonical.decode(payload, max_bytes=MAX_ENVELOPE_BYTES))


def _load(value: JSON) -> Statement:
    if not isinstance(value, dict) or value.keys() != _TOP:
        raise refuse("statement", f"an object of exactly {', '.join(sorted(_TOP))}", value)
    if value["_type"] != STATEMENT_TYPE:
        raise refuse("statement._type", STATEMENT_TYPE, value["_type"])
    uri = value["predicateType"]
    if not isinstance(uri, str) or uri not in _BY_TYPE:
        raise FormatError(
            f"statement.predicateType: unknown kind {repr(uri)[:80]}", code="unknown kind"
        )
    cls, rule = _BY_TYPE[uri]
    subjects = cast("tuple[Subject, ...]", _SUBJECTS.load(value["subject"], f"{cls.KIND}.subject"))
    fields = rule.load(value["predicate"], cls.KIND)
    if carried := _CARRIED[uri]:
        fields |= carried(subjects)
    statement = cls(**fields)
    # A derived subject must be the one derived; a carried one must have the right name and kind.
    if statement.subjects() != subjects:
        raise refuse(f"{cls.KIND}.subject", "the subjects its fields give", value["subject"])
    return statement
