"""One table of a TOML file, read field by field: what is wrong with it is said in one line."""

from collections.abc import Mapping, Sequence
from typing import cast

from attest.errors import InputError

__all__ = ["Table"]

MAX_INTEGER = 2**53 - 1


class Table:
    """Read one table whose field names are known; another name is refused with a suggestion.

    Raises:
        InputError: for an unknown name, naming it and the nearest known one.
    """

    def __init__(self, values: Mapping[str, object], path: str, names: Sequence[str]) -> None:
        self._values = values
        self._path = path
        self._names = names
        for name in values:
            if name not in names:
                raise InputError(f"{self._at(name)}: unknown key{_nearest(name, names)}")

    def has(self, name: str) -> bool:
        """Say whether the table holds a field."""
        return name in self._values

    def text(self, name: str, default: str | None = None) -> str:
        """Return a non-empty printable ASCII string."""
        value = self._value(name, default)
        return self._printable(name, value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of such strings without repetition; an absent one is empty."""
        texts = tuple(self._printable(name, item) for item in self._items(name))
        if len(set(texts)) != len(texts):
            raise self.bad(name, "an entry is listed twice")
        return texts

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """Return one of the given strings."""
        value = self.text(name, default)
        if value not in choices:
            raise self.bad(name, f"{value[:80]!r} is unknown{_nearest(value, choices)}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer from 0 to 2^53 - 1."""
        value = self._value(name, default)
        if type(value) is not int or not 0 <= value <= MAX_INTEGER:
            raise self.bad(name, "must be an integer from 0 to 2^53 - 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite, non-negative number."""
        value = self._value(name, default)
        # `<=` is false for nan.
        if type(value) not in (int, float) or not 0 <= cast(float, value) <= MAX_INTEGER:
            raise self.bad(name, "must be a finite number, not negative")
        return float(cast(float, value))

    def table(self, name: str, names: Sequence[str]) -> "Table":
        """Return a table inside; an absent one is empty."""
        return self._inner(name, self._values.get(name, {}), names)

    def tables(self, name: str, names: Sequence[str]) -> tuple["Table", ...]:
        """Return an array of tables; an absent one is empty."""
        return tuple(self._inner(name, item, names) for item in self._items(name))

    def bad(self, name: str, what: str) -> InputError:
        """Return the error that names a field and what is wrong with it."""
        return InputError(f"{self._at(name)}: {what}")

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _value(self, name: str, default: object) -> object:
        value = self._values.get(name, default)
        if value is None:
            raise self.bad(name, "is missing")
        return value

    def _items(self, name: str) -> list[object]:
        value = self._values.get(name, [])
        if not isinstance(value, list):
            raise self.bad(name, "must be a list")
        return cast("list[object]", value)

    def _inner(self, name: str, value: object, names: Sequence[str]) -> "Table":
        if not isinstance(value, dict):
            raise self.bad(name, "must be a table")
        return Table(cast("dict[str, object]", value), self._at(name), names)

    def _printable(self, name: str, value: object) -> str:
        # A name of a policy is printed in verdicts: nothing that could pass for another line.
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
            raise self.bad(name, "must be non-empty printable ASCII text")
        return value


def _nearest(name: str, names: Sequence[str]) -> str:
    import difflib  # only a wrong file needs it

    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"
