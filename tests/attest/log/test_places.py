"""Logs whose parts lie elsewhere: object stores, databases, and what is refused there."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest import merkle
from attest.checkpoint import open_checkpoint
from attest.errors import AttestError, FormatError, InputError, RefusedError
from attest.log.fsck import fsck
from attest.log.head_store import Heads, HeadStore
from attest.log.places import Places
from attest.log.sequencer import LocalLog
from attest.tile_files import TileDirectory, Tiles
from attest.tiles import TileFile

pytest.importorskip("obstore", reason="obstore is not installed: extra `objects`")
from attest.log.object_store import Bucket, ObjectHeads, ObjectTiles  # noqa: E402

_NUMBERS = itertools.count()


def memory() -> str:
    return f"memory://{next(_NUMBERS)}"


@pytest.fixture(params=["tiles", "heads", "postgres", "all"])
def places(request: pytest.FixtureRequest) -> Places:
    if request.param == "tiles":
        return Places(tiles=memory())
    if request.param == "heads":
        return Places(heads=memory())
    schema: Callable[[], str] = request.getfixturevalue("postgres").schema
    if request.param == "postgres":
        return Places(store=schema(), heads=schema())
    return Places(store=schema(), tiles=memory(), heads=memory())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_log_is_the_same_wherever_its_parts_lie(
    log: LocalLog, run_directory: Path, lab: ModuleType
):
    directory, trainer = run_directory / "log", lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 9)], keys=[trainer.author])
    log.checkpoint()
    log.append(trainer.train(1, 10, 300))
    head = open_checkpoint(log.checkpoint(), log.names.log)
    for index in (0, 255, 302):
        leaf = merkle.leaf_hash(log.entry(index).to_bytes())
        path = log.inclusion(index, head.size)
        merkle.verify_inclusion(index, head.size, leaf, path, head.root)
    log.close()
    assert fsck(directory).size == 303
    with LocalLog.open(directory) as again, LocalLog.open(directory) as other:
        assert again.published() == log.published()
        assert again.append([trainer.step(1, 301)]) == [303]
        assert other.append([trainer.step(1, 302)]) == [304]
        assert open_checkpoint(other.checkpoint(), log.names.log).size == 305
        assert not again.tiles.has("tile/0/000.p/12")
        with pytest.raises(AttestError):
            again.append([trainer.step(1, 304)])
    assert fsck(directory).head.size == 305


def test_head_behind_which_the_store_falls_back_is_refused_wherever_it_lies(
    log: LocalLog, run_directory: Path, lab: ModuleType, places: Places, stack: ExitStack
):
    trainer = lab.Lab()
    log.append(trainer.opening(), keys=[trainer.author])
    heads = stack.enter_context(closing(places.open_heads(log._layout)))
    before = heads.read()
    log.checkpoint()
    after = heads.read()
    assert before != after
    with pytest.raises(RefusedError) as refusal:
        heads.swap(before, b"another")
    assert refusal.value.check == "head"
    assert heads.read() == after
    with pytest.raises(InputError, match="already"):
        heads.create(before)
    # What an old copy of the entries looks like: fewer than the head covers.
    log.close()
    store = places.open_store(log._layout)
    store.rows("DELETE FROM entries WHERE idx = 2")
    store.rows("UPDATE tree SET size = 2")
    store.close()
    for read in (LocalLog.open, fsck):
        with pytest.raises(RefusedError) as refusal:
            read(run_directory / "log")
        assert refusal.value.check == "behind head"


# --- tiles ---


@pytest.fixture(params=["directory", "objects"])
def tiles(request: pytest.FixtureRequest, tmp_path: Path) -> Tiles:
    return TileDirectory(tmp_path) if request.param == "directory" else ObjectTiles(memory())


def test_file_is_written_once(tiles: Tiles):
    """Whoever comes second with the same bytes is fine; with others he is refused."""
    tile = TileFile("tile/0/000", bytes(8192))
    tiles.write([tile])
    tiles.write([tile])
    with pytest.raises(RefusedError, match="tile/0/000 is there already") as refusal:
        tiles.write([TileFile("tile/0/001", b"new"), TileFile("tile/0/000", bytes(8191) + b"x")])
    assert refusal.value.check == "tile"
    assert tiles.read("tile/0/000") == tile.data
    assert tiles.has("tile/0/000")
    assert not tiles.has("tile/0/002")
    with pytest.raises(InputError):
        tiles.read("tile/0/002")


def test_full_file_takes_the_place_of_its_partial_ones(tiles: Tiles):
    names = ["tile/0/000.p/1", "tile/0/000.p/2", "tile/0/001.p/1", "tile/entries/000.p/1"]
    tiles.write([TileFile(name, name.encode()) for name in names])
    assert sorted(tiles.names()) == names
    tiles.write([TileFile("tile/0/000", b"full")])
    assert sorted(tiles.names()) == ["tile/0/000", *names[2:]]


def test_checkpoint_is_replaced(tiles: Tiles):
    for note in (b"one", b"two"):
        tiles.publish(note)
        assert tiles.read("checkpoint") == note
    assert list(tiles.names()) == []


def test_directory_leaves_no_temporary_file(tmp_path: Path):
    tiles = TileDirectory(tmp_path)
    for data in (b"one", b"one"):
        tiles.write([TileFile("tile/0/000", data)])
    with pytest.raises(RefusedError):
        tiles.write([TileFile("tile/0/000", b"two")])
    assert [path.name for path in (tmp_path / "tile" / "0").iterdir()] == ["000"]


# --- heads ---


@pytest.fixture(params=["file", "objects", "postgres"])
def heads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Heads]:
    if request.param == "file":
        yield HeadStore(tmp_path / "head")
    elif request.param == "objects":
        yield ObjectHeads(memory())
    else:
        from attest.log.postgres_store import PostgresHeads

        with closing(PostgresHeads(request.getfixturevalue("postgres").schema())) as opened:
            yield opened


def test_head_is_only_exchanged_for_the_one_that_was_read(heads: Heads):
    with pytest.raises(AttestError):
        heads.read()
    heads.create(b"one")
    heads.swap(b"one", b"two")
    with pytest.raises(RefusedError) as refusal:
        heads.swap(b"one", b"three")
    assert refusal.value.check == "head"
    assert heads.read() == b"two"
    with pytest.raises(InputError, match="already"):
        heads.create(b"four")


def test_object_head_that_changes_between_the_look_and_the_swap_is_kept(
    monkeypatch: pytest.MonkeyPatch,
):
    heads = ObjectHeads(memory())
    heads.create(b"one")
    read = Bucket.read_tagged

    def overtaken(self: Bucket, path: str, max_bytes: int) -> Any:
        found = read(self, path, max_bytes)
        self.replace(path, b"other")
        return found

    monkeypatch.setattr(Bucket, "read_tagged", overtaken)
    with pytest.raises(RefusedError) as refusal:
        heads.swap(b"one", b"two")
    assert refusal.value.check == "head"
    monkeypatch.undo()
    assert heads.read() == b"other"


# --- what is refused ---


def test_object_store_that_overwrites_takes_no_tiles(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bucket, "create", lambda self, path, data: True)
    with pytest.raises(InputError, match="overwrites what is there"):
        ObjectTiles(memory())


def test_object_store_that_ignores_or_lacks_tags_takes_no_heads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with pytest.raises(InputError, match="does not compare before it replaces"):
        ObjectHeads(tmp_path.as_uri())
    monkeypatch.setattr(Bucket, "swap", lambda self, path, data, tag: True)
    with pytest.raises(InputError, match="does not compare before it replaces"):
        ObjectHeads(memory())


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"store": "sqlite:///x"}, "only postgresql"),
        ({"store": "entries"}, "no address"),
        ({"tiles": "postgresql://log@db/x"}, "does not serve files"),
        ({"store": "postgresql://log:secret@db/x"}, "holds a password"),
        ({"store": "postgresql://db/x", "heads": "postgresql://db/x"}, "with the entries"),
    ],
)
def test_address_that_no_log_is_kept_at_is_refused(named: dict[str, str], words: str):
    with pytest.raises(InputError, match=words):
        Places(**named)


def test_unknown_object_store_is_one_line():
    with pytest.raises(InputError, match="object store nosuch://x") as failure:
        ObjectTiles("nosuch://x")
    assert "\n" not in str(failure.value)


def test_damaged_file_of_places_is_refused(log: LocalLog, run_directory: Path):
    path = run_directory / "log" / "places.json"
    path.write_bytes(b'{"elsewhere":"s3://bucket"}')
    with pytest.raises(FormatError, match="does not name a log's places"):
        LocalLog.open(run_directory / "log")


def test_second_log_at_the_same_place_is_refused(
    log: LocalLog, tmp_path: Path, lab: ModuleType, places: Places
):
    """Also of tiles alone: two logs would refuse each other's files one by one."""
    with pytest.raises(InputError):
        LocalLog.create(
            tmp_path / "other", lab.key("log"), lab.key("witness"), "log.example/b", places=places
        )
