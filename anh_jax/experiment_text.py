"""A config record as YAML text, each key with what its field says about itself."""

import io
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from anh_jax import experiment_schema as schemas

_COLUMN = 36
_INDENT = 2


class _Representer(RoundTripRepresenter):
    """Write null as a word; ruamel's own choice, nothing at all, reads as forgotten."""

    def represent_none(self, data: None) -> ScalarNode:
        """Return the node for null."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def commented_yaml(record: msgspec.Struct, *, header: str) -> str:
    """Write a record as YAML 1.2 with an end-of-line comment for each described field."""
    writer = YAML()
    writer.Representer = _Representer
    # Wide enough that no value is folded: folded text would put its comment on the wrong line.
    writer.width = 1 << 16
    writer.indent(mapping=_INDENT, sequence=2 * _INDENT, offset=_INDENT)
    text = io.StringIO()
    writer.dump(_commented(record, depth=0), text)
    lines = "".join(f"# {line}\n" for line in header.splitlines())
    return lines + text.getvalue()


def _commented(record: msgspec.Struct, *, depth: int) -> CommentedMap:
    mapping = CommentedMap()
    schema = schemas.struct_type(type(record))
    if schema.tag_field is not None:
        mapping[schema.tag_field] = schema.tag
        _explain(mapping, schema.tag_field, _first_line(type(record)), depth=depth)
    for field in schema.fields:
        value = getattr(record, field.name)
        mapping[field.encode_name] = _value(value, depth=depth + 1)
        _explain(mapping, field.encode_name, schemas.description(field.type), depth=depth)
    return mapping


def _explain(mapping: CommentedMap, key: str, text: str, *, depth: int) -> None:
    if not text:
        return
    value = mapping[key]
    if isinstance(value, CommentedMap | list) and value:
        # Under a key that opens a block, an end-of-line comment belongs to the key itself.
        mapping.yaml_set_comment_before_after_key(key, before=text, indent=_INDENT * depth)
    else:
        mapping.yaml_add_eol_comment(text, key, column=_COLUMN)


def _first_line(config_class: type) -> str:
    return (config_class.__doc__ or "").strip().splitlines()[0]


def _value(value: Any, *, depth: int) -> Any:
    if isinstance(value, msgspec.Struct):
        return _commented(value, depth=depth)
    if isinstance(value, dict):
        return {key: _value(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, depth=depth + 1) for item in value]
    return value
