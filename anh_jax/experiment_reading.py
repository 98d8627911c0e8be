"""From YAML and `key=value` overrides to plain values, before any record is made of them.

YAML 1.2 by ruamel.yaml: `1e-3` is a number and `off` is a word.
"""

import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from anh_jax.errors import ConfigError
from anh_jax.experiment_errors import Origin, Override, dotted

MAX_BYTES = 1 << 20
CHOICES_WITH_IMPORT = ("model", "data", "loss")


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Read a config file as plain values.

    Raises ConfigError naming the file, and the line where it is not YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; this is no config")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name a YAML config such as digits.yaml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    loaded = parse_yaml(text, where=str(path))
    if loaded is None:
        raise ConfigError(f"{path}: empty; a config has at least model, data, loss, optimizer")
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected groups of keys, got {type(loaded).__name__}")
    return _plain(loaded, where=str(path))


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML 1.2 text; raises ConfigError naming `where`, and the line where there are some."""
    # The pure parser: the C one, where installed, speaks YAML 1.1 and reads 1e-3 as text.
    reader = YAML(typ="safe", pure=True)
    try:
        return reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None and "\n" in text else ""
        problem = error.problem or error.context or "unreadable"
        raise ConfigError(f"{where}{line}: not YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not YAML: nested too deep") from None
    except (YAMLError, ValueError) as error:
        problem = (str(error).splitlines() or ["unreadable"])[0]
        raise ConfigError(f"{where}: not YAML: {problem}") from None


def parse_override(text: str) -> Override:
    """Read one `dotted.key=value`; the value is YAML, so `1e-3`, `[1, 2]` and `{a: 1}` work."""
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(part and part == part.strip() for part in parts):
        raise ConfigError(f"override '{text}': write it as key=value, such as training.steps=100")
    path = tuple(int(part) if part.isascii() and part.isdecimal() else part for part in parts)
    where = f"override '{text}'"
    return Override(text=text, path=path, value=_plain(parse_yaml(value, where=where), where=where))


def apply_override(raw: dict[str, Any], override: Override) -> None:
    """Set one value in plain config values, making groups on the way.

    Raises ConfigError where the path leads through a value that is no group or list.
    """
    where: Any = raw
    for depth, part in enumerate(override.path):
        key = _key_in(where, part, override=override, depth=depth)
        if depth == len(override.path) - 1:
            where[key] = override.value
        elif isinstance(where, dict) and where.get(key) is None:
            where[key] = where = {}
        else:
            where = where[key]


def name_imports(raw: dict[str, Any], *, origin: Origin) -> None:
    """Give a group that holds `import:` the choice it stands for."""
    for group in CHOICES_WITH_IMPORT:
        value = raw.get(group)
        if not isinstance(value, dict) or "import" not in value:
            continue
        if value.setdefault("name", "import") != "import":
            raise ConfigError(
                f"{origin.of((group,))}: {group}: has both name and import; keep one, "
                f"on the command line as {group}='{{import: package.module:function}}'"
            )


def _key_in(where: Any, part: str | int, *, override: Override, depth: int) -> Any:
    if isinstance(where, dict):
        return str(part)
    reason = "is no group of keys"
    if isinstance(where, list):
        if isinstance(part, int) and part < len(where):
            return part
        reason = f"is a list of {len(where)}, counted from 0"
    at = dotted(override.path[:depth])
    raise ConfigError(f"override '{override.text}': {dotted(override.path)}: {at} {reason}")


def _plain(value: Any, *, where: str, path: tuple[str, ...] = ()) -> Any:
    """Copy YAML values into dict, list and scalars of their own (aliases share, dates are text)."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not key.isascii():
                place = ".".join((*path, ascii(key)))
                raise ConfigError(f"{where}: {place}: a key must be ASCII text; quote a number")
        return {key: _plain(item, where=where, path=(*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where=where, path=(*path, str(i))) for i, item in enumerate(value)]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(f"{where}: {'.'.join(path)}: text holds half a character; spell it out")
    if value is None or isinstance(value, str | int | float):
        return value
    kind = type(value).__name__
    raise ConfigError(f"{where}: {'.'.join(path)}: {kind} is no config value; use text or numbers")
