"""Write configuration.md from the config records themselves, so that it cannot go stale.

Run it as `python docs/write_configuration.py`; tests/test_docs.py compares.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from anh_jax import experiment_schema as schemas
from anh_jax.experiment import CONTRACT_GROUPS, GENESIS_KEYS, Experiment

PAGE = Path(__file__).with_name("configuration.md")
_INTRODUCTION = """# Configuration

One YAML file says everything about a run. `anh train FILE` reads it, fills in the defaults below,
checks all of it before anything is computed, and keeps the resolved file as `config.yaml` in the
run directory. `anh train FILE --print-config` prints the resolved file and stops.

- The format is YAML 1.2: `1e-3` is a number, `off` is a word. Keys and text are printable ASCII. At
  most 1 MiB.
- `KEY=VALUE` after the file overrides one key, as in `training.steps=50` or
  `optimizer.schedule='{kind: linear}'`. The value is YAML; a list entry is named by its number, as
  in `properties.0.margin=5`. A later override wins.
- An unknown or missing key, a value of the wrong type and values that do not fit together are
  errors of one line, which name the file or the override, the key, and what would fit. Exit code 2.
- `name:` picks one of the choices of a group. `import: package.module:function` with `options:`
  picks your own code instead; put its folder on `PYTHONPATH`. A model's function is called as
  `function(fields, **options)`, where `fields` maps each field of an example to something with
  `shape` and `dtype`, and returns an `anh_jax.models.model.Model`; a data function is called as
  `function(**options)` and returns an `anh_jax.data.sources.Source`; a loss function is called as
  `function(**options)` and returns a function of (predictions, examples).

**Enters the contract:** {contract}. Their canonical JSON, floats as C99 hexadecimal text and file
locations left out, has the SHA-256 that the contract names as `config`. Change any of them, and it
is another contract.

**Fixed by genesis as well**, so that a resumed run must keep it: {genesis}. Everything else may
change at `anh resume`.

`attest.log` and `attest.witnesses` take `local` alone in this version: records go to the local
log of the run directory, cosigned by its own witness. `metrics.jsonl` is always written.
`plan.kind: native` states in genesis that the steps are computed by code of your own
([own_loop.md](own_loop.md)); `anh train` itself always runs the stored
programs. `training.seed_rule: beacon` is refused. What the numerics classes are, which backend runs
them, and what `attest.bound` measures: [numerics_classes.md](numerics_classes.md).

This page is written by `python docs/write_configuration.py`; edit the records, not the page.
"""


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    kind: str
    default: str
    meaning: str


def document() -> str:
    """Return the whole page as Markdown."""
    parts = [_introduction()]
    for field in schemas.struct_type(Experiment).fields:
        where = "in the contract" if field.name in CONTRACT_GROUPS else "not in the contract"
        parts.append(f"## `{field.encode_name}`\n\n{schemas.description(field.type)} ({where})\n")
        parts += _group(field)
    return "\n".join(parts)


def _introduction() -> str:
    names = {"contract": CONTRACT_GROUPS, "genesis": GENESIS_KEYS}
    return "\n\n".join(_filled(paragraph, names) for paragraph in _INTRODUCTION.split("\n\n"))


def _filled(paragraph: str, names: Mapping[str, tuple[str, ...]]) -> str:
    """Put the names where `{key}` stands, and lay the lines out anew."""
    for key, found in names.items():
        if f"{{{key}}}" in paragraph:
            listed = ", ".join(f"`{name}`" for name in found)
            flowing = paragraph.replace("\n", " ").replace(f"{{{key}}}", listed)
            return textwrap.fill(flowing, 100, break_on_hyphens=False)
    return paragraph


def _group(field: inspect.Field) -> Iterator[str]:
    named = schemas.choices(field.type)
    for name, record in named.items():
        key = "import: package.module:function" if name == "import" else f"name: {name}"
        yield f"### `{field.encode_name}: {{{key}, ...}}`\n\n{_sentence(record.cls)}\n"
        yield _table(_rows(record, None)) or "No further keys.\n"
    if named:
        return
    schema = schemas.strip(field.type)
    if isinstance(schema, inspect.StructType):
        yield _table(_rows(schema, _default_of(field)))
    elif isinstance(schema, inspect.VarTupleType):
        yield _list(field, schema)


def _list(field: inspect.Field, schema: inspect.VarTupleType) -> str:
    item = schemas.strip(schema.item_type)
    start = f"A list; by default {_text(_default_of(field))}. "
    if isinstance(item, inspect.StructType):
        return f"{start}Each entry: {_sentence(item.cls)}\n\n{_table(_rows(item, None))}"
    return f"{start}Each entry is {_kind(item)}.\n"


def _rows(record: inspect.StructType, value: Any, prefix: str = "") -> Iterator[_Row]:
    """Yield the fields of a record and of those inside it; `value` is the record's default."""
    for field in record.fields:
        key = f"{prefix}{field.encode_name}"
        own = value is None or value is msgspec.NODEFAULT
        default = _default_of(field) if own else getattr(value, field.name)
        inner = schemas.strip(field.type)
        if isinstance(inner, inspect.StructType):
            yield from _rows(inner, default, f"{key}.")
            continue
        shown = "required" if default is msgspec.NODEFAULT else _text(default)
        yield _Row(key, _kind(field.type), shown, schemas.description(field.type))


def _default_of(field: inspect.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _text(value: Any) -> str:
    """Write a default as YAML would take it."""
    plain = msgspec.to_builtins(value)
    # Text that looks like a number is text only in quotes.
    bare = isinstance(plain, str) and not plain.isdecimal()
    return f"`{plain if bare else json.dumps(plain)}`"


def _kind(schema: inspect.Type) -> str:
    schema = schemas.strip(schema)
    match schema:
        case inspect.UnionType():
            kinds = [_kind(t) for t in schema.types if not isinstance(t, inspect.NoneType)]
            return f"{' or '.join(kinds)}, or null"
        case inspect.LiteralType():
            return "one of " + ", ".join(f"`{choice}`" for choice in schema.values)
        case inspect.VarTupleType():
            return f"list of: {_kind(schema.item_type)}"
        case inspect.DictType():
            return "group of keys"
        case inspect.IntType():
            return f"integer{_range(schema)}"
        case inspect.FloatType():
            return f"number{_range(schema)}"
        case inspect.StrType(pattern=str(pattern)):
            escaped = str(pattern).replace("|", r"\|")  # a bare one would end the table's cell
            return f"text matching `{escaped}`"
        case _:
            return "text"


def _range(schema: inspect.IntType | inspect.FloatType) -> str:
    low = [f"from {_short(schema.ge)}"] if schema.ge is not None else []
    low += [f"above {_short(schema.gt)}"] if schema.gt is not None else []
    high = [f"to {_short(schema.le)}"] if schema.le is not None else []
    high += [f"to below {_short(schema.lt)}"] if schema.lt is not None else []
    return " " + " ".join((*low, *high)) if low or high else ""


def _short(number: float) -> str:
    if number > 1 << 16:
        exponent = int(number).bit_length()
        for power, sign in ((exponent, -1), (exponent - 1, 0)):
            if number == (1 << power) + sign:
                return f"2^{power}" + (" - 1" if sign else "")
    return f"{number:g}"


def _sentence(config_class: type) -> str:
    return (config_class.__doc__ or "").strip().splitlines()[0]


def _table(rows: Iterator[_Row]) -> str:
    lines = [f"| `{r.key}` | {r.kind} | {r.default} | {r.meaning} |" for r in rows]
    head = ["| key | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *lines, ""]) if lines else ""


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
