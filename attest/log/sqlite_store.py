"""Where a log keeps what it has acknowledged: SQLite in WAL mode, synced at every commit.

The store says nothing about right or wrong. Size and root of all committed entries lie beside them
and are written in the same transaction, so that a restart can compare.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attest.errors import InputError, RefusedError
from attest.merkle import EMPTY_ROOT

_SCHEMA = """
CREATE TABLE entries (idx INTEGER PRIMARY KEY, record BLOB NOT NULL UNIQUE, leaf BLOB NOT NULL);
CREATE TABLE keys (public BLOB PRIMARY KEY);
CREATE TABLE tree (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL,
                   root BLOB NOT NULL);
"""
_BUSY_MILLISECONDS = 60_000


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """Hold one committed entry: log index, record hash, leaf bytes."""

    index: int
    record: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """Hold the size and root of everything committed."""

    size: int
    root: bytes


class SqliteStore:
    """Hold one connection to a store; threads take turns (the log's lock sees to it).

    Raises:
        InputError: from every method, if the database cannot be read or written (disk full, I/O
            error, no such file).
        RefusedError: (check `store`) from every method, if the database is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise InputError(f"no log store at {path}")
        with self._errors():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
                # FULL: a commit is on the disk before it returns. An acknowledged index is final.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(cls, path: Path) -> SqliteStore:
        """Make an empty store; an existing file is refused."""
        try:
            path.touch(mode=0o644, exist_ok=False)
        except OSError as error:
            raise InputError(f"cannot create {path}: {error.strerror}") from None
        store = cls(path)
        with store._transaction():
            for statement in _SCHEMA.split(";"):
                store._db.execute(statement)
            store._db.execute("INSERT INTO tree VALUES (1, 0, ?)", (EMPTY_ROOT,))
        return store

    def close(self) -> None:
        """Close the connection."""
        with self._errors():
            self._db.close()

    def committed(self) -> Committed:
        """Return size and root of what is committed."""
        row = self._one("SELECT size, root FROM tree", ())
        if row is None:
            raise self._damaged("has no tree row")
        return Committed(self._integer(row[0]), self._blob(row[1]))

    def append(
        self, entries: Iterable[StoredEntry], keys: Iterable[bytes], committed: Committed
    ) -> None:
        """Commit entries, public keys, and the size and root they lead to, all or nothing."""
        with self._transaction():
            rows = [(e.index, e.record, e.leaf) for e in entries]
            self._db.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
            self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?)", [(k,) for k in keys])
            self._db.execute("UPDATE tree SET size = ?, root = ?", (committed.size, committed.root))

    def entries(self, start: int, stop: int) -> Iterator[StoredEntry]:
        """Yield the entries `start` to `stop` (excluded) in order, every one of them."""
        query = "SELECT idx, record, leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        expected = start
        with self._errors():
            for row in self._db.execute(query, (start, stop)):
                if row[0] != expected:
                    raise self._damaged(f"lacks entry {expected}")
                yield StoredEntry(expected, self._blob(row[1]), self._blob(row[2]))
                expected += 1
        if expected != stop:
            raise self._damaged(f"lacks entry {expected}")

    def leaf(self, index: int) -> bytes:
        """Return one committed leaf."""
        row = self._one("SELECT leaf FROM entries WHERE idx = ?", (index,))
        if row is None:
            raise InputError(f"{self._path}: the log has no entry {index}")
        return self._blob(row[0])

    def index_of(self, record: bytes) -> int | None:
        """Return the index of a record by its hash, None if it is not in the log."""
        row = self._one("SELECT idx FROM entries WHERE record = ?", (record,))
        return None if row is None else self._integer(row[0])

    def public_keys(self) -> list[bytes]:
        """Return all public keys that were committed with entries."""
        with self._errors():
            rows = self._db.execute("SELECT public FROM keys ORDER BY public").fetchall()
        return [self._blob(row[0]) for row in rows]

    def count(self) -> int:
        """Return how many entries there are, whatever `committed` says."""
        row = self._one("SELECT count(*) FROM entries", ())
        return 0 if row is None else self._integer(row[0])

    def check(self) -> None:
        """Let SQLite check its own pages and indexes."""
        row = self._one("PRAGMA integrity_check(1)", ())
        if row is None or row[0] != "ok":
            raise self._damaged(str(row[0] if row else "integrity check gives nothing"))

    def _one(self, query: str, values: tuple[object, ...]) -> tuple[object, ...] | None:
        with self._errors():
            return self._db.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as e:
            raise InputError(f"log store {self._path}: {e}; free or check the disk") from None
        except sqlite3.Error as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> RefusedError:
        return RefusedError(f"log store {self._path} is damaged: {what}", check="store")

    def _blob(self, value: object) -> bytes:
        if not isinstance(value, bytes):
            raise self._damaged("a value is not a blob")
        return value

    def _integer(self, value: object) -> int:
        if not isinstance(value, int) or value < 0:
            raise self._damaged("a value is not an index")
        return value
