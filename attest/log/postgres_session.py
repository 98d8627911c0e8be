"""A connection to a PostgreSQL server that keeps what it acknowledges; a broken one is replaced."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import LiteralString, cast

from attest.errors import InputError, RefusedError
from attest.log.sql_store import Row, Values

try:
    import psycopg
    from psycopg import errors, sql
except ImportError:
    raise InputError(
        "a log in PostgreSQL needs psycopg: install anh-jax with the extra `postgres`"
    ) from None

_WAIT_SECONDS = 60
_CONNECT_SECONDS = 10
# What a server with one of these switched off has acknowledged, a power failure may take back.
_DURABLE = ("fsync", "full_page_writes")
_DAMAGED = (
    errors.DataCorrupted,
    errors.IndexCorrupted,
    errors.UniqueViolation,
    errors.UndefinedTable,
    errors.CheckViolation,
)


class PostgresSession:
    """Hold a connection by its libpq URL; a password belongs into the password file.

    Raises:
        InputError: from every method, if the server is not there, breaks off, or lets another
            writer go first; the call may be repeated.
        RefusedError: (check `store`) from every method, if the database is damaged, or the server
            acknowledges what it may lose.
    """

    def __init__(self, url: str) -> None:
        self.name = f"log store {url.partition('?')[0]}"
        self._url = url
        self._in_transaction = False
        self._connection: psycopg.Connection[Row] | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """Run one statement, its values written as question marks; return its rows."""
        with self.connection() as connection:
            # Not user input: this room's own statements.
            spelled = sql.SQL(cast(LiteralString, query.replace("?", "%s")))
            cursor = connection.execute(spelled, values, binary=True)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Make the statements inside one serializable, durable transaction."""
        with self.connection() as connection:
            self._in_transaction = True
            try:
                with connection.transaction():
                    yield
            finally:
                self._in_transaction = False

    @contextmanager
    def connection(self) -> Generator[psycopg.Connection[Row]]:
        """Give the connection, and turn what goes wrong with it into one line."""
        try:
            if self._connection is None or self._connection.closed:
                # Inside a transaction a new session would know nothing of what came before.
                if self._in_transaction:
                    raise InputError(f"{self.name}: the connection broke; try again")
                self._connection = self._connect()
            yield self._connection
        except _DAMAGED as error:
            words = " ".join(str(error).split())
            raise RefusedError(f"{self.name} is damaged: {words}", check="store") from None
        except psycopg.Error as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.name}: {words}") from None

    def _connect(self) -> psycopg.Connection[Row]:
        connection: psycopg.Connection[Row] = psycopg.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="anh log"
        )
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        wait = f"{_WAIT_SECONDS}s"
        connection.execute("SELECT set_config(%s, %s, false)", ("lock_timeout", wait))
        connection.execute("SET synchronous_commit = on")
        connection.execute("SET client_min_messages = warning")
        for setting in _DURABLE:
            row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
            if row != ("on",):
                connection.close()
                raise RefusedError(
                    f"{self.name}: the server runs with {setting} off and may lose what it has "
                    "acknowledged; switch it on",
                    check="store",
                )
        return connection
