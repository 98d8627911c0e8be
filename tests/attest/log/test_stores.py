"""What every store of entries must do, wherever it keeps them."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attest.errors import InputError, RefusedError
from attest.log.sqlite_store import SqliteStore
from attest.log.store import Addition, Committed, Store, StoredEntry, Turn
from attest.merkle import EMPTY_ROOT

EMPTY = Committed(0, EMPTY_ROOT)


@pytest.fixture(params=["sqlite", "postgres"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Return what opens one more connection to a new store."""
    opened: list[Store] = []
    if request.param == "sqlite":
        path = tmp_path / "entries.sqlite"
        SqliteStore.create(path).close()
        open_store: Callable[[], Any] = lambda: SqliteStore(path)  # noqa: E731
    else:
        url = request.getfixturevalue("postgres").schema()
        from attest.log.postgres_store import PostgresStore

        PostgresStore.create(url).close()
        open_store = lambda: PostgresStore(url)  # noqa: E731

    def connect() -> Store:
        opened.append(open_store())
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def store(connect: Callable[[], Store]) -> Store:
    return connect()


def entry(index: int) -> StoredEntry:
    # Every byte occurs: a store must not take leaves for text.
    leaf = bytes(range(256)) + b"leaf %d" % index
    return StoredEntry(index, hashlib.sha256(leaf).digest(), leaf)


def at(size: int) -> Committed:
    return Committed(size, hashlib.sha256(b"root %d" % size).digest() if size else EMPTY_ROOT)


def addition(start: int, stop: int, **more: Any) -> Addition:
    return Addition(at(start), at(stop), [entry(i) for i in range(start, stop)], **more)


def test_new_store_is_empty(store: Store):
    assert store.committed() == EMPTY
    assert (store.count(), list(store.entries(0, 0)), store.public_keys()) == (0, [], [])
    assert store.snapshot() is None
    assert not store.frozen()
    store.check()


def test_what_is_committed_is_read_back_by_another_connection(connect: Callable[[], Store]):
    connect().append(addition(0, 3, keys=[b"k" * 32, b"a" * 32, b"k" * 32]))
    other = connect()
    assert other.committed() == at(3)
    assert list(other.entries(0, 3)) == [entry(0), entry(1), entry(2)]
    assert list(other.entries(1, 2)) == [entry(1)]
    assert other.leaf(2) == entry(2).leaf
    assert other.index_of(entry(1).record) == 1
    assert other.index_of(entry(3).record) is None
    wanted = [entry(i).record for i in (2, 7, 0)]
    assert other.indices_of(wanted) == {entry(2).record: 2, entry(0).record: 0}
    assert other.indices_of([]) == {}
    assert other.public_keys() == [b"a" * 32, b"k" * 32]
    assert other.count() == 3


def test_key_that_is_known_already_is_no_error(store: Store):
    store.append(addition(0, 1, keys=[b"k" * 32]))
    store.append(addition(1, 2, keys=[b"k" * 32]))
    assert store.public_keys() == [b"k" * 32]


def test_many_entries_come_in_order_and_without_a_gap(store: Store):
    store.append(addition(0, 2500))
    assert [e.index for e in store.entries(3, 2400)] == list(range(3, 2400))
    records = [entry(i).record for i in range(2500)]
    assert store.indices_of(records) == {record: i for i, record in enumerate(records)}


def test_entries_beyond_the_end_are_missed(store: Store):
    store.append(addition(0, 2))
    with pytest.raises(RefusedError, match="lacks entry 2"):
        list(store.entries(0, 3))
    with pytest.raises(InputError, match="no entry 2"):
        store.leaf(2)


def test_commit_that_was_judged_before_another_is_refused_whole(connect: Callable[[], Store]):
    """Two sequencers that both believe to be alone: the second one writes nothing."""
    first, second = connect(), connect()
    first.append(addition(0, 2))
    late = Addition(EMPTY, at(3), [entry(7), entry(8), entry(9)], keys=[b"k" * 32])
    with pytest.raises(InputError, match="another writer was faster"):
        second.append(late)
    other_root = Addition(Committed(2, bytes(32)), at(3), [entry(2)])
    with pytest.raises(InputError, match="another writer was faster"):
        second.append(other_root)
    assert second.committed() == at(2)
    assert (second.count(), second.public_keys()) == (2, [])


def test_commit_that_fails_half_way_leaves_nothing(store: Store):
    store.append(addition(0, 2))
    twice = Addition(at(2), at(4), [entry(2), StoredEntry(3, entry(0).record, b"leaf")], [b"k"])
    with pytest.raises(RefusedError) as refusal:
        store.append(twice)
    assert refusal.value.check == "store"
    assert "\n" not in str(refusal.value)
    assert (store.committed(), store.count(), store.public_keys()) == (at(2), 2, [])
    store.append(addition(2, 4))
    assert store.committed() == at(4)


def test_snapshot_takes_the_place_of_the_one_before(store: Store):
    store.append(addition(0, 1, snapshot=b"one"))
    store.append(addition(1, 2))
    assert store.snapshot() == b"one"
    store.append(addition(2, 3, snapshot=b"three"))
    assert store.snapshot() == b"three"


def test_frozen_store_takes_nothing_more(connect: Callable[[], Store]):
    one, other = connect(), connect()
    one.append(addition(0, 1))
    one.freeze()
    one.freeze()
    assert other.frozen()
    with pytest.raises(RefusedError) as refusal:
        other.append(addition(1, 2))
    assert refusal.value.check == "frozen"
    assert list(other.entries(0, other.committed().size)) == [entry(0)]


def test_a_turn_is_one_connections_alone_and_the_other_turn_is_free(
    connect: Callable[[], Store],
):
    one, other, third = connect(), connect(), connect()
    order: list[str] = []

    def wait() -> None:
        with other.exclusive(Turn.APPEND):
            order.append("second")

    waiting = threading.Thread(target=wait)
    with one.exclusive(Turn.APPEND):
        waiting.start()
        with third.exclusive(Turn.PUBLISH):
            time.sleep(0.1)
            order.append("first")
    waiting.join(timeout=20)
    assert order == ["first", "second"]


def test_store_is_made_once_and_found_only_where_it_was_made(
    connect: Callable[[], Store], tmp_path: Path
):
    store = connect()
    if isinstance(store, SqliteStore):
        with pytest.raises(InputError, match="cannot create"):
            SqliteStore.create(tmp_path / "entries.sqlite")
        with pytest.raises(InputError, match="no log store"):
            SqliteStore(tmp_path / "other.sqlite")


def test_postgres_log_is_made_once_and_found_only_where_it_was_made(postgres: Any):
    from attest.log.postgres_store import PostgresStore

    url = postgres.schema()
    with pytest.raises(InputError, match="holds no log"):
        PostgresStore(url)
    PostgresStore.create(url).close()
    with pytest.raises(InputError, match="there is a log already"):
        PostgresStore.create(url)


def test_server_that_is_not_there_is_one_line(tmp_path: Path):
    pytest.importorskip("psycopg")
    from attest.log.postgres_store import PostgresStore

    with pytest.raises(InputError, match="log store postgresql:") as failure:
        PostgresStore(f"postgresql://log@/postgres?host={tmp_path}")
    assert "\n" not in str(failure.value)


def test_server_that_may_lose_what_it_acknowledged_is_not_used(postgres: Any):
    from attest.log.postgres_store import PostgresStore

    url = postgres.schema()
    try:
        postgres.set("full_page_writes", "off")
        with pytest.raises(RefusedError, match="full_page_writes off"):
            PostgresStore.create(url)
    finally:
        postgres.set("full_page_writes", "on")
    PostgresStore.create(url).close()


def test_sqlite_syncs_a_write_ahead_log_at_every_commit(tmp_path: Path):
    store = SqliteStore.create(tmp_path / "entries.sqlite")
    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA synchronous") == [(2,)]  # FULL
    store.close()


def test_postgres_commits_serializably_and_waits_for_the_disk(postgres: Any):
    from attest.log.postgres_session import PostgresSession

    session = PostgresSession(postgres.schema())
    with session.transaction():
        level = session.rows("SELECT current_setting('transaction_isolation')")
        assert level == [("serializable",)]
    assert session.rows("SELECT current_setting('synchronous_commit')") == [("on",)]
    session.close()


def test_session_that_was_cut_off_fails_once_and_then_goes_on(postgres: Any):
    from attest.log.postgres_store import PostgresStore

    url = postgres.schema()
    PostgresStore.create(url).close()
    store = PostgresStore(url)
    store.append(addition(0, 1))
    postgres.cut_off()
    with pytest.raises(InputError):
        store.append(addition(1, 2))
    assert store.committed() == at(1)
    store.append(addition(1, 2))
    assert store.committed() == at(2)
    with pytest.raises(InputError), store.transaction():
        postgres.cut_off()
        # Not even the second statement may run in a session that knows nothing of the first.
        for _ in range(2):
            with pytest.raises(InputError):
                store.rows("SELECT 1")
        raise InputError("the transaction has failed")
    store.close()


def test_writer_that_lost_its_turn_with_its_session_commits_nothing(postgres: Any):
    """Its lock is gone, another has committed meanwhile: the comparison in the commit holds it."""
    from attest.log.postgres_store import PostgresStore

    url = postgres.schema()
    PostgresStore.create(url).close()
    store, other = PostgresStore(url), PostgresStore(url)
    with store.exclusive(Turn.APPEND):
        postgres.cut_off()
        with pytest.raises(InputError):
            other.committed()
        with other.exclusive(Turn.APPEND):
            other.append(addition(0, 1))
        with pytest.raises(InputError):
            store.append(addition(0, 2))
        with pytest.raises(InputError, match="another writer was faster"):
            store.append(addition(0, 2))
    assert list(other.entries(0, other.committed().size)) == [entry(0)]
    store.close()
    other.close()
