"""What the stores in SQL databases have in common: one schema, one set of queries.

Question marks stand for values; a database that spells them otherwise translates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from attest.errors import InputError, RefusedError
from attest.log.store import Addition, Committed, StoredEntry

# Blobs and integers are spelled as the database does. `one` keeps a table to a single row.
TABLES = """
CREATE TABLE entries (idx {integer} PRIMARY KEY, record {blob} NOT NULL UNIQUE,
                      leaf {blob} NOT NULL);
CREATE TABLE keys (public {blob} PRIMARY KEY);
CREATE TABLE tree (one INTEGER PRIMARY KEY CHECK (one = 1), size {integer} NOT NULL,
                   root {blob} NOT NULL);
"""
# Logs of the first version have not got these.
LATER_TABLES = """
CREATE TABLE IF NOT EXISTS snapshot (one INTEGER PRIMARY KEY CHECK (one = 1), data {blob} NOT NULL);
CREATE TABLE IF NOT EXISTS frozen (one INTEGER PRIMARY KEY CHECK (one = 1));
"""
# Rows of one read: a reader holds back nobody for longer, and no more of the log is in memory.
_CHUNK = 1024

Values = tuple[object, ...]
Row = tuple[object, ...]


class SqlStore(ABC):
    """Keep a log in a database; what is particular to one is left to its class."""

    def __init__(self, name: str) -> None:
        self._name = name

    @abstractmethod
    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """Run one statement and return its rows."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Make the statements inside one durable transaction, undone if any of them fails."""

    @abstractmethod
    def insert(self, entries: Sequence[StoredEntry], keys: Sequence[bytes]) -> None:
        """Insert entries, and those keys that are not there yet."""

    def committed(self) -> Committed:
        """Return size and root of what is committed."""
        row = self._one("SELECT size, root FROM tree")
        if row is None:
            raise self.damaged("has no tree row")
        return Committed(self._integer(row[0]), self._blob(row[1]))

    def append(self, addition: Addition) -> None:
        """Commit an addition, all or nothing, if it continues what is committed."""
        with self.transaction():
            # First of all, for the writer that comes second waits here and sees what the other did.
            if self.committed() != addition.before:
                raise InputError(f"{self._name}: another writer was faster; try again")
            if self.frozen():
                raise RefusedError(f"{self._name}: the log is frozen", check="frozen")
            self.insert(addition.entries, list(addition.keys))
            after = addition.after
            self.rows("UPDATE tree SET size = ?, root = ?", (after.size, after.root))
            if addition.snapshot is not None:
                self.rows("DELETE FROM snapshot")
                self.rows("INSERT INTO snapshot VALUES (1, ?)", (addition.snapshot,))

    def entries(self, start: int, stop: int) -> Iterator[StoredEntry]:
        """Yield the entries `start` to `stop` (excluded) in order, every one of them."""
        query = "SELECT idx, record, leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        expected = start
        while expected < stop:
            rows = self.rows(query, (expected, min(stop, expected + _CHUNK)))
            if not rows:
                raise self.damaged(f"lacks entry {expected}")
            for row in rows:
                if row[0] != expected:
                    raise self.damaged(f"lacks entry {expected}")
                yield StoredEntry(expected, self._blob(row[1]), self._blob(row[2]))
                expected += 1

    def leaf(self, index: int) -> bytes:
        """Return one committed leaf."""
        row = self._one("SELECT leaf FROM entries WHERE idx = ?", (index,))
        if row is None:
            raise InputError(f"{self._name}: the log has no entry {index}")
        return self._blob(row[0])

    def indices_of(self, records: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the indices of those records, by their hashes, that are in the log."""
        found: dict[bytes, int] = {}
        for start in range(0, len(records), _CHUNK // 2):
            some = records[start : start + _CHUNK // 2]
            marks = ", ".join("?" * len(some))
            query = f"SELECT record, idx FROM entries WHERE record IN ({marks})"
            for row in self.rows(query, tuple(some)):
                found[self._blob(row[0])] = self._integer(row[1])
        return found

    def index_of(self, record: bytes) -> int | None:
        """Return the index of a record by its hash, None if it is not in the log."""
        row = self._one("SELECT idx FROM entries WHERE record = ?", (record,))
        return None if row is None else self._integer(row[0])

    def public_keys(self) -> list[bytes]:
        """Return all public keys that were committed with entries."""
        return [self._blob(row[0]) for row in self.rows("SELECT public FROM keys ORDER BY public")]

    def count(self) -> int:
        """Return how many entries there are, whatever `committed` says."""
        row = self._one("SELECT count(*) FROM entries")
        return 0 if row is None else self._integer(row[0])

    def snapshot(self) -> bytes | None:
        """Return the stored snapshot, None if there is none yet."""
        row = self._one("SELECT data FROM snapshot")
        return None if row is None else self._blob(row[0])

    def freeze(self) -> None:
        """Let nothing more be appended, for good."""
        with self.transaction():
            if not self.frozen():
                self.rows("INSERT INTO frozen VALUES (1)")

    def frozen(self) -> bool:
        """Say whether the log was frozen."""
        return self._one("SELECT one FROM frozen") is not None

    def damaged(self, what: str) -> RefusedError:
        """Return the refusal of a damaged database."""
        return RefusedError(f"{self._name} is damaged: {what}", check="store")

    def _one(self, query: str, values: Values = ()) -> Row | None:
        rows = self.rows(query, values)
        return rows[0] if rows else None

    def _blob(self, value: object) -> bytes:
        if not isinstance(value, bytes):
            raise self.damaged("a value is not a blob")
        return value

    def _integer(self, value: object) -> int:
        if not isinstance(value, int) or value < 0:
            raise self.damaged("a value is not an index")
        return value


def statements(script: str, *, integer: str, blob: str) -> list[str]:
    """Return the statements of a schema, with a database's own names of its types."""
    return [s for s in script.format(integer=integer, blob=blob).split(";") if s.strip()]
