"""One-line errors for a config: which file or override, which key, what is wrong, what fits."""

import difflib
import re
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from anh_jax import experiment_schema as schemas
from anh_jax.errors import ConfigError

Path = tuple[str | int, ...]
_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`$")
_VALUE = re.compile(r"^Invalid (?:enum )?value .*$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected (?P<want>.*?)(?:, got `(?P<got>\w+)`)?$", re.DOTALL)
_WORDS = {"object": "a group of keys", "array": "a list", "null": "null", "str": "text"}


@dataclass(frozen=True, slots=True)
class Override:
    """One `key=value` of the command line: its text, its path and its value."""

    text: str
    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of a config came from: a file, then overrides, the last one winning."""

    file: str
    overrides: tuple[Override, ...] = ()

    def of(self, path: Path) -> str:
        """Name the override that set the value at `path`, or else the file."""
        for override in reversed(self.overrides):
            # Either may be the longer: an override may also have made the group it lies in.
            if all(str(a) == str(b) for a, b in zip(override.path, path, strict=False)):
                return f"override '{override.text}'"
        return self.file


def dotted(path: Path) -> str:
    """Write a path as a user types it: `properties.0.margin`."""
    return ".".join(str(part) for part in path)


def explain(error: msgspec.ValidationError, *, config_class: type, raw: Any, origin: Origin) -> str:
    """Turn msgspec's message into one line that names the file, the key and a fix."""
    match = _AT.match(str(error))
    assert match is not None
    path: Path = tuple(
        int(index) if index.isdigit() else name or index
        for name, index in _PART.findall(match["path"] or "")
    )
    what, schema = match["what"], schemas.struct_type(config_class)
    if unknown := _UNKNOWN.match(what):
        path = (*path, unknown[1])
        return f"{origin.of(path)}: {dotted(path)}: {_unknown(path, schema, raw)}"
    if missing := _MISSING.match(what):
        path = (*path, missing[1])
        return f"{origin.of(path)}: {dotted(path)}: {_missing(path, schema, raw)}"
    value = raw
    for part in path:
        value = schemas.child(value, part)
    line = f"{origin.of(path)}: {dotted(path) or 'config'}: "
    if _VALUE.match(what):
        return line + _not_allowed(path, schema, raw, value)
    if expected := _EXPECTED.match(what):
        want = re.sub(r"`([^`]*)`", lambda word: _WORDS.get(word[1], word[1]), expected["want"])
        got = "nothing" if value is None else _shown(value)
        hint = _every(path, value)
        if hint:
            return f"{line}{got} does not fit{hint}"
        if "matching regex" in want:
            about = schemas.description_at(schema, raw, path)
            return f"{line}{got} does not fit: {about}" if about else f"{line}{got} does not fit"
        return f"{line}expected {want}, got {got}"
    return line + what


def refuse(origin: Origin, path: Path, message: str) -> ConfigError:
    """Return the error for a value that has the right type and does not fit."""
    return ConfigError(f"{origin.of(path)}: {dotted(path)}: {message}")


def suggestion(name: str, candidates: list[str]) -> str:
    """Return ` (did you mean ...?)`, or nothing where no candidate is near."""
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return f"text {text}" if isinstance(value, str) else text


def _every(path: Path, value: object) -> str:
    # The commonest slip in these: the number alone, without the word.
    number = str(value).removeprefix("every").strip()
    spelt_so = [("attest", key) for key in ("digest", "segments", "bound")]
    if path in spelt_so and re.fullmatch("[1-9][0-9]{0,3}", number):
        return f" (did you mean 'every {number}'?)"
    return ""


def _unknown(path: Path, schema: inspect.StructType, raw: Any) -> str:
    name, record = str(path[-1]), schemas.type_at(schema, raw, path[:-1])
    fields = (
        [field.encode_name for field in record.fields]
        if isinstance(record, inspect.StructType)
        else []
    )
    tag = record.tag if isinstance(record, inspect.StructType) else None
    if near := suggestion(name, fields):
        return f"unknown field{near}"
    if tag is not None:
        listed = ", ".join(fields) or "none"
        group = f"{dotted(path[:-1])}='{{name: {tag}, ...}}'"
        return (
            f"unknown field of {tag} (its fields: {listed}; to choose anew give it whole: {group})"
        )
    elsewhere = _elsewhere(name, schema) or f" (fields here: {', '.join(fields)})"
    return f"unknown field{elsewhere}"


def _elsewhere(name: str, schema: inspect.StructType) -> str:
    # A right name in the wrong group is the commonest mistake after a typing error.
    paths = [path for path in schemas.field_paths(schema) if path.rsplit(".", 1)[-1] == name]
    return f" (did you mean {paths[0]}?)" if paths else ""


def _missing(path: Path, schema: inspect.StructType, raw: Any) -> str:
    record = schemas.type_at(schema, raw, path[:-1])
    if path[-1] == "name" and (named := schemas.choices(record) if record else {}):
        names = [name for name in named if name != "import"]
        also = ", or use import: package.module:function" if "import" in named else ""
        return f"missing; choose one of {', '.join(names)}{also}"
    if isinstance(record, inspect.StructType):
        for field in record.fields:
            if field.encode_name == path[-1] and (text := schemas.description(field.type)):
                return f"missing; add it: {text}"
    return "missing; add it"


def _not_allowed(path: Path, schema: inspect.StructType, raw: Any, value: object) -> str:
    allowed: list[str] = []
    if path and path[-1] == "name":
        above = schemas.type_at(schema, raw, path[:-1])
        allowed = list(schemas.choices(above)) if above else []
    if not allowed:
        literal = schemas.type_at(schema, raw, path)
        if isinstance(literal, inspect.LiteralType):
            allowed = [str(choice) for choice in literal.values]
    hint = suggestion(str(value), allowed)
    return f"{_shown(value)} is not one of {', '.join(allowed)}{hint}"
