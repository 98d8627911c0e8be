"""Field rules: each says how one JSON value becomes one Python value, and refuses every other.

A frozen dataclass states its rules in its annotations, `Annotated[str, HEX64]`; the JSON name of
`run_key` is `runKey` (a trailing underscore, as in `class_`, only avoids a Python keyword).
Annotations must be real objects, so such modules do without `from __future__ import annotations`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, ClassVar, TypeAlias, cast, get_origin

from attest.canonical import JSON, MAX_INT, parse_hex_float
from attest.errors import FormatError
from attest.keys import Role, check_public_key

_HEX64 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


@dataclass(frozen=True, slots=True)
class Rule:
    """Pair the two directions; `load` takes a value and the field's name for the error."""

    load: Callable[[JSON, str], Any]
    dump: Callable[[Any], JSON]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Mark a field that is not written where its neighbours are."""


def refuse(where: str, expected: str, value: object) -> FormatError:
    """Make the error of a wrong field: its name, what it must be, what it is."""
    return FormatError(f"{where}: expected {expected}, got {repr(value)[:60]}", code="field")


def _same(value: Any) -> JSON:
    return value


def text(*, longest: int = 200, shortest: int = 1) -> Rule:
    """Accept printable ASCII of bounded length."""

    def load(value: JSON, where: str) -> str:
        if (
            not isinstance(value, str)
            or not shortest <= len(value) <= longest
            or not (value.isascii() and value.isprintable())
        ):
            raise refuse(where, f"{shortest} to {longest} printable ASCII characters", value)
        return value

    return Rule(load, _same)


def matching(pattern: str, what: str) -> Rule:
    """Accept text that matches a regular expression from end to end."""
    compiled = re.compile(pattern, re.ASCII)

    def load(value: JSON, where: str) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise refuse(where, what, value)
        return value

    return Rule(load, _same)


def one_of(*choices: str) -> Rule:
    """Accept one of the listed words."""

    def load(value: JSON, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise refuse(where, " or ".join(repr(c) for c in choices), value)
        return value

    return Rule(load, _same)


def integer(low: int, high: int = MAX_INT) -> Rule:
    """Accept an integer in [low, high]; true and false are no integers."""

    def load(value: JSON, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise refuse(where, f"an integer from {low} to {high}", value)
        return value

    return Rule(load, _same)


def optional(rule: Rule) -> Rule:
    """Accept null as None, or what the rule accepts."""

    def load(value: JSON, where: str) -> Any:
        return None if value is None else rule.load(value, where)

    def dump(value: Any) -> JSON:
        return None if value is None else rule.dump(value)

    return Rule(load, dump)


def listed(item: Rule, *, least: int = 0) -> Rule:
    """Accept a list as a tuple."""

    def load(value: JSON, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < least:
            raise refuse(where, f"a list of at least {least} items", value)
        return tuple(item.load(x, f"{where}[{i}]") for i, x in enumerate(value))

    def dump(value: tuple[Any, ...]) -> JSON:
        return [item.dump(x) for x in value]

    return Rule(load, dump)


def increasing(item: Rule) -> Rule:
    """Accept a list whose items grow strictly: one spelling per set."""
    inner = listed(item)

    def load(value: JSON, where: str) -> tuple[Any, ...]:
        items = inner.load(value, where)
        if any(a >= b for a, b in zip(items, items[1:], strict=False)):
            raise refuse(where, "strictly increasing items", value)
        return items

    return Rule(load, inner.dump)


def mapping(item: Rule) -> Rule:
    """Accept an object of simple names; keys are free, values follow the rule."""

    def load(value: JSON, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise refuse(where, "an object", value)
        for key in value:
            if not _KEY.fullmatch(key):
                raise refuse(where, "names of letters, digits and _.:/-", key)
        return {key: item.load(x, f"{where}.{key}") for key, x in value.items()}

    def dump(value: Mapping[str, Any]) -> JSON:
        return {key: item.dump(x) for key, x in value.items()}

    return Rule(load, dump)


def either(first: Rule, second: Rule, what: str) -> Rule:
    """Accept what one of two rules accepts; both must write values as they are."""

    def load(value: JSON, where: str) -> Any:
        for rule in (first, second):
            try:
                return rule.load(value, where)
            except FormatError:
                continue
        raise refuse(where, what, value)

    return Rule(load, _same)


def record(cls: type) -> Rule:
    """Accept an object with exactly the dataclass's fields; the rules are its annotations."""
    fields = tuple(
        (name, json_name(name), rule)
        for name, annotation in cls.__annotations__.items()
        if (rule := _rule_of(cls, name, annotation)) is not None
    )
    names = {json for _, json, _ in fields}

    def load(value: JSON, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise refuse(where, "an object", value)
        if value.keys() != names:
            if missing := sorted(names - value.keys()):
                raise FormatError(f"{where}.{missing[0]}: field is missing", code="missing field")
            unknown = min(value.keys() - names)
            raise FormatError(f"{where}.{unknown[:60]}: unknown field", code="unknown field")
        return {name: rule.load(value[json], f"{where}.{json}") for name, json, rule in fields}

    def dump(value: Any) -> JSON:
        return {json: rule.dump(getattr(value, name)) for name, json, rule in fields}

    return Rule(load, dump)


def built(cls: type) -> Rule:
    """Accept what `record` accepts, as an instance of the dataclass."""
    inner = record(cls)

    def load(value: JSON, where: str) -> Any:
        return cls(**inner.load(value, where))

    return Rule(load, inner.dump)


def json_name(name: str) -> str:
    """Write a Python field name as lowerCamelCase."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def _rule_of(cls: type, name: str, annotation: Any) -> Rule | None:
    if get_origin(annotation) is ClassVar:
        return None
    if is_dataclass(annotation):
        return built(annotation)  # pyright: ignore[reportArgumentType]
    for note in getattr(annotation, "__metadata__", ()):
        if isinstance(note, Rule):
            return note
        if isinstance(note, Elsewhere):
            return None
    raise TypeError(f"{cls.__name__}.{name} states no rule")


def _load_digest(value: JSON, where: str) -> str:
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        raise refuse(where, "64 lower-case hex digits", value)
    return value


def _load_public_key(value: JSON, where: str) -> str:
    key = _load_digest(value, where)
    try:
        check_public_key(bytes.fromhex(key))
    except FormatError as error:
        raise FormatError(f"{where}: {error}", code=error.code) from None
    return key


def _load_role(value: JSON, where: str) -> Role:
    for role in Role:
        if role.value == value:
            return role
    raise refuse(where, "a role", value)


def _load_hex_float(value: JSON, where: str) -> str:
    text = cast(str, value)  # parse_hex_float refuses what is not text
    try:
        parse_hex_float(text)
    except FormatError as error:
        raise FormatError(f"{where}: {error}", code=error.code) from None
    return text


def _load_positive(value: JSON, where: str) -> str:
    known = _load_hex_float(value, where)
    if not 0.0 < parse_hex_float(known) < float("inf"):
        raise refuse(where, "a finite positive number", value)
    return known


def _load_magnitude(value: JSON, where: str) -> str:
    known = _load_hex_float(value, where)
    if known.startswith("-") or not parse_hex_float(known) < float("inf"):
        raise refuse(where, "a finite number, not negative", value)
    return known


HEX64 = Rule(_load_digest, _same)
PUBLIC_KEY = Rule(_load_public_key, _same)
HEX_FLOAT = Rule(_load_hex_float, _same)
POSITIVE = Rule(_load_positive, _same)
MAGNITUDE = Rule(_load_magnitude, _same)
TEXT = text()
COUNT = integer(0)
ORDINAL = integer(1)

Hex64: TypeAlias = Annotated[str, HEX64]
OptionalHex64: TypeAlias = Annotated[str | None, optional(HEX64)]
PublicKey: TypeAlias = Annotated[str, PUBLIC_KEY]
OptionalPublicKey: TypeAlias = Annotated[str | None, optional(PUBLIC_KEY)]
KeyRole: TypeAlias = Annotated[Role, Rule(_load_role, lambda role: role.value)]
HexFloat: TypeAlias = Annotated[str, HEX_FLOAT]
OptionalHexFloat: TypeAlias = Annotated[str | None, optional(HEX_FLOAT)]
Positive: TypeAlias = Annotated[str, POSITIVE]
OptionalMagnitude: TypeAlias = Annotated[str | None, optional(MAGNITUDE)]
Text: TypeAlias = Annotated[str, TEXT]
Count: TypeAlias = Annotated[int, COUNT]
Ordinal: TypeAlias = Annotated[int, ORDINAL]
Indices: TypeAlias = Annotated[tuple[int, ...], increasing(COUNT)]
Facts: TypeAlias = Annotated[Mapping[str, str], mapping(text(longest=4000, shortest=0))]
Utc: TypeAlias = Annotated[
    str,
    matching(
        r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ", "a time such as 2030-01-31T00:00:00Z"
    ),
]
