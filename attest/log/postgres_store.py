"""A store, and a place for heads, in PostgreSQL: for a log whose sequencer may change its machine.

The log's tables lie in the schema that the connection's search path names first. Writers take turns
by an advisory lock, which ends with the session; a writer that lost it, and another that took over,
are told apart by the size and root that each commit compares, in a serializable transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from attest.errors import InputError
from attest.log.head_store import head_moved
from attest.log.postgres_session import PostgresSession
from attest.log.sql_store import LATER_TABLES, TABLES, Row, SqlStore, Values, statements
from attest.log.store import StoredEntry, Turn
from attest.merkle import EMPTY_ROOT

# First halves of the advisory locks' numbers; the second is the tree table's own.
_LOCKS = {Turn.APPEND: 0x616E6801, Turn.PUBLISH: 0x616E6802}


class PostgresStore(SqlStore):
    """Hold one session with a store; a broken one is opened anew by the next call."""

    def __init__(self, url: str) -> None:
        self._session = PostgresSession(url)
        super().__init__(self._session.name)
        try:
            if not _has_tables(self._session):
                raise InputError(f"{self._name}: holds no log; its schema has no table `tree`")
            for statement in statements(LATER_TABLES, integer="BIGINT", blob="BYTEA"):
                self.rows(statement)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, url: str) -> PostgresStore:
        """Make the tables of an empty log; a schema that has them already is refused."""
        session = PostgresSession(url)
        try:
            if _has_tables(session):
                raise InputError(f"{session.name}: there is a log already; use another schema")
            with session.transaction():
                for statement in statements(TABLES, integer="BIGINT", blob="BYTEA"):
                    session.rows(statement)
                session.rows("INSERT INTO tree VALUES (1, 0, ?)", (EMPTY_ROOT,))
        finally:
            session.close()
        return cls(url)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    @contextmanager
    def exclusive(self, turn: Turn) -> Generator[None]:
        """Hold the advisory lock of a turn, in the very session that commits."""
        lock = f"({_LOCKS[turn]}, to_regclass('tree')::oid::int)"
        self.rows(f"SELECT pg_advisory_lock{lock}")
        try:
            yield
        finally:
            # A session that is gone has given up the lock itself.
            with suppress(InputError):
                self.rows(f"SELECT pg_advisory_unlock{lock}")

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """Run one statement and return its rows."""
        return self._session.rows(query, values)

    def transaction(self) -> AbstractContextManager[None]:
        """Make the statements inside one serializable, durable transaction."""
        return self._session.transaction()

    def insert(self, entries: Sequence[StoredEntry], keys: Sequence[bytes]) -> None:
        """Insert entries, and those keys that are not there yet."""
        with self._session.connection() as connection, connection.cursor() as cursor:
            copy = "COPY entries (idx, record, leaf) FROM STDIN (FORMAT BINARY)"
            with cursor.copy(copy) as stream:
                stream.set_types(("int8", "bytea", "bytea"))
                for entry in entries:
                    stream.write_row((entry.index, entry.record, entry.leaf))
            for key in keys:
                cursor.execute("INSERT INTO keys VALUES (%s) ON CONFLICT DO NOTHING", (key,))

    def check(self) -> None:
        """Read every row: a server that keeps checksums compares them so."""
        self.rows("SELECT sum(length(leaf)) FROM entries")


class PostgresHeads:
    """Hold the newest signed checkpoint of one log in a table `head` with one row.

    It belongs into another database than the entries: one that is restored together with them would
    not show that entries are missing.
    """

    def __init__(self, url: str) -> None:
        self._session = PostgresSession(url)

    def create(self, note: bytes) -> None:
        """Store a log's first head; InputError if there is one already."""
        session = self._session
        with session.transaction():
            session.rows("CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY, note BYTEA)")
            if session.rows("SELECT one FROM head"):
                raise InputError(f"{session.name}: there is a signed head already")
            session.rows("INSERT INTO head VALUES (1, ?)", (note,))

    def read(self) -> bytes:
        """Return the signed head; InputError if it is missing."""
        found = self._session.rows("SELECT note FROM head")
        if len(found) != 1 or not isinstance(note := found[0][0], bytes):
            raise InputError(f"{self._session.name}: holds no signed head")
        return note

    def swap(self, expected: bytes, note: bytes) -> None:
        """Store a new head if the stored one is `expected`, else RefusedError (check `head`)."""
        query = "UPDATE head SET note = ? WHERE note = ? RETURNING one"
        with self._session.transaction():
            if not self._session.rows(query, (note, expected)):
                raise head_moved(self._session.name)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _has_tables(session: PostgresSession) -> bool:
    return session.rows("SELECT to_regclass('tree') IS NOT NULL") == [(True,)]
