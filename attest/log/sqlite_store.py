"""A store in one SQLite file: WAL mode, synced at every commit. The default."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attest.errors import InputError
from attest.file_lock import locked
from attest.log.sql_store import LATER_TABLES, TABLES, Row, SqlStore, Values, statements
from attest.log.store import StoredEntry, Turn
from attest.merkle import EMPTY_ROOT

_BUSY_MILLISECONDS = 60_000
# What the database keeps of its pages in memory, in KiB.
_CACHE_KIB = 64 * 1024


class SqliteStore(SqlStore):
    """Hold one connection to a store; threads take turns (the log's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"log store {path}")
        self._path = path
        if not path.is_file():
            raise InputError(f"no log store at {path}")
        with self._errors():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self.rows(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            self.rows(f"PRAGMA cache_size = -{_CACHE_KIB}")
            # FULL: a commit is on the disk before it returns. An acknowledged index is final.
            self.rows("PRAGMA journal_mode = WAL")
            self.rows("PRAGMA synchronous = FULL")
            for statement in statements(LATER_TABLES, integer="INTEGER", blob="BLOB"):
                self.rows(statement)
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
        with store.transaction():
            for statement in statements(TABLES, integer="INTEGER", blob="BLOB"):
                store.rows(statement)
            store.rows("INSERT INTO tree VALUES (1, 0, ?)", (EMPTY_ROOT,))
        return store

    def close(self) -> None:
        """Close the connection."""
        with self._errors():
            self._db.close()

    def exclusive(self, turn: Turn) -> AbstractContextManager[None]:
        """Hold the lock file of a turn, beside the database."""
        return locked(self._path.with_name(turn.value))

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """Run one statement and return its rows."""
        with self._errors():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Make the statements inside one durable transaction."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def insert(self, entries: Sequence[StoredEntry], keys: Sequence[bytes]) -> None:
        """Insert entries, and those keys that are not there yet."""
        rows = [(e.index, e.record, e.leaf) for e in entries]
        self._db.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?)", [(key,) for key in keys])

    def check(self) -> None:
        """Let SQLite check its own pages and indexes."""
        rows = self.rows("PRAGMA integrity_check(1)")
        if not rows or rows[0][0] != "ok":
            raise self.damaged(str(rows[0][0] if rows else "integrity check gives nothing"))

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as e:
            raise InputError(f"{self._name}: {e}; free or check the disk") from None
        except sqlite3.Error as error:
            raise self.damaged(str(error)) from None
