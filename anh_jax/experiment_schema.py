"""What the config records say about themselves: fields, descriptions, choices and their types.

A thin reading of `msgspec.inspect`, so that errors can suggest a name and `--print-config` can
explain one without a second list of the fields.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

Raw = Any


def struct_type(config_class: type) -> inspect.StructType:
    """Return the schema of a config record."""
    schema = inspect.type_info(config_class)
    assert isinstance(schema, inspect.StructType)
    return schema


def strip(schema: inspect.Type) -> inspect.Type:
    """Return the type below its descriptions."""
    while isinstance(schema, inspect.Metadata):
        schema = schema.type
    return schema


def description(schema: inspect.Type) -> str:
    """Return what the field says about itself, or the first sentence of its record's docstring."""
    while isinstance(schema, inspect.Metadata):
        text = (schema.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        schema = schema.type
    return ""


def is_location(schema: inspect.Type) -> bool:
    """Tell whether the field only says where something lies on this machine."""
    found = False
    while isinstance(schema, inspect.Metadata):
        found = found or bool((schema.extra or {}).get("location"))
        schema = schema.type
    return found


def choices(schema: inspect.Type) -> dict[str, inspect.StructType]:
    """Return the records a `name:` key chooses from, by name; empty where there is no choice."""
    schema = strip(schema)
    members = schema.types if isinstance(schema, inspect.UnionType) else (schema,)
    return {
        str(member.tag): member
        for member in members
        if isinstance(member, inspect.StructType) and member.tag is not None
    }


def resolve(schema: inspect.Type, value: Raw) -> inspect.Type:
    """Return the type that a value is meant to have, following its `name:` through a choice."""
    named = choices(schema)
    if named:
        chosen = value.get("name") if isinstance(value, dict) else None
        return named.get(str(chosen), strip(schema))
    schema = strip(schema)
    if isinstance(schema, inspect.UnionType):
        for member in schema.types:
            if not isinstance(member, inspect.NoneType):
                return strip(member)
    return schema


def type_at(schema: inspect.Type, value: Raw, path: tuple[str | int, ...]) -> inspect.Type | None:
    """Return the type of the value that lies at `path` below `value`, or None."""
    found = _described_at(schema, value, path)
    for part in path:
        value = child(value, part)
    return None if found is None else resolve(found, value)


def description_at(schema: inspect.Type, value: Raw, path: tuple[str | int, ...]) -> str:
    """Return what the field at `path` says about itself, or nothing."""
    found = _described_at(schema, value, path)
    return "" if found is None else description(found)


def _described_at(
    schema: inspect.Type, value: Raw, path: tuple[str | int, ...]
) -> inspect.Type | None:
    for part in path:
        above = resolve(schema, value)
        if isinstance(above, inspect.StructType):
            below = [field.type for field in above.fields if field.encode_name == part]
            if not below:
                return None
            schema = below[0]
        elif isinstance(above, inspect.VarTupleType):
            schema = above.item_type
        else:
            return None
        value = child(value, part)
    return schema


def child(value: Raw, part: str | int) -> Raw:
    """Return the value under a key or index, or None where there is none."""
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return None


def field_paths(schema: inspect.Type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every field, through every choice."""
    records = [*choices(schema).values()] or [resolve(schema, None)]
    for record in records:
        if not isinstance(record, inspect.StructType):
            continue
        for field in record.fields:
            path = f"{prefix}{field.encode_name}"
            yield path
            yield from field_paths(field.type, f"{path}.")
