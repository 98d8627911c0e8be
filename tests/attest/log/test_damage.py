"""A damaged log: refused at open and by fsck, never repaired by guessing, never signed on."""

import json
import resource
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from attest import canonical, durable_file
from attest.envelope import Envelope
from attest.errors import AttestError, FormatError, InputError, RefusedError
from attest.log import publisher
from attest.log.fsck import fsck
from attest.log.sequencer import LocalLog
from attest.log.sqlite_store import SqliteStore
from attest.tiles import TileFile

ORIGIN = "log.example/runs"
SIZE = 300


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, lab: ModuleType) -> Path:
    """Return a run directory whose log has 300 records under two heads; do not write to it."""
    directory = tmp_path_factory.mktemp("sound")
    (directory / "keys").mkdir()
    for name in ("log", "witness"):
        lab.key(name).save(directory / "keys" / name)
    trainer = lab.Lab()
    keys = lab.key("log"), lab.key("witness")
    with LocalLog.create(directory / "log", *keys, ORIGIN) as log:
        log.append(trainer.opening(), keys=[trainer.author])
        log.append(trainer.train(1, 1, 7))
        log.checkpoint()
        log.append(trainer.train(1, 8, SIZE - 3))
        log.checkpoint()
    return directory


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """Return the log directory of a copy that a test may damage."""
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run" / "log"


def flip(path: Path, position: int, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def refused(directory: Path, *, check: str = "") -> None:
    for read in (LocalLog.open, fsck):
        with pytest.raises(AttestError) as refusal:
            read(directory)
        assert "\n" not in str(refusal.value)
        if check:
            assert isinstance(refusal.value, RefusedError)
            assert refusal.value.check == check


def test_sound_log_passes(copy: Path):
    report = fsck(copy)
    assert (report.size, report.head.size) == (SIZE, SIZE)
    assert report.kinds == (("attempt", 1), ("contract", 1), ("genesis", 1), ("step", 297))
    LocalLog.open(copy).close()


@pytest.mark.parametrize("index", [0, 1, 2, 7, 255, 299])
def test_bit_flipped_in_an_entry_is_refused(copy: Path, index: int):
    store = copy / "entries.sqlite"
    with sqlite3.connect(store) as database:
        (leaf,) = database.execute("SELECT leaf FROM entries WHERE idx = ?", (index,)).fetchone()
    database.close()
    position = store.read_bytes().index(leaf[:200])
    flip(store, position + 120)
    refused(copy)


def test_bit_flipped_anywhere_in_the_store_is_refused_or_changes_nothing(sound: Path, copy: Path):
    store = copy / "entries.sqlite"
    data = store.read_bytes()
    with LocalLog.open(sound / "log") as log:
        entries, size = list(log.entries(0, SIZE)), log.size
    refusals = 0
    for position in range(13, len(data), len(data) // 40):
        flip(store, position, position % 8)
        try:
            with LocalLog.open(copy) as log:
                assert (log.size, list(log.entries(0, SIZE))) == (size, entries)
        except AttestError:
            refusals += 1
        for leftover in copy.glob("entries.sqlite-*"):
            leftover.unlink()
        store.write_bytes(data)
    assert refusals > 20


def test_record_that_is_not_found_by_its_hash_is_refused(sound: Path, copy: Path):
    """A bit in the store's index changes no entry, but would let a record be logged twice."""
    store = copy / "entries.sqlite"
    data = store.read_bytes()
    with LocalLog.open(sound / "log") as log:
        record = log.entry(100).record_hash()
    places = [i for i in range(len(data)) if data.startswith(record, i)]
    assert len(places) == 2
    for place in places:
        flip(store, place + 31)
        refused(copy)
        for leftover in copy.glob("entries.sqlite-*"):
            leftover.unlink()
        store.write_bytes(data)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tree SET size = 299",
        "UPDATE tree SET size = 301",
        "UPDATE tree SET root = zeroblob(32)",
        "UPDATE tree SET root = 'text'",
        "DELETE FROM tree",
        "DELETE FROM entries WHERE idx = 299",
        "DELETE FROM entries WHERE idx = 5",
        "UPDATE entries SET idx = 1000 WHERE idx = 299",
        "UPDATE entries SET record = zeroblob(32) WHERE idx = 5",
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE idx = 6) WHERE idx = 5",
        "INSERT INTO entries SELECT 300, zeroblob(32), leaf FROM entries WHERE idx = 5",
        "DROP TABLE entries",
    ],
)
def test_altered_store_is_refused(copy: Path, statement: str):
    database = sqlite3.connect(copy / "entries.sqlite")
    database.execute(statement)
    database.commit()
    database.close()
    refused(copy)


def test_entry_and_root_forged_together_do_not_pass_for_the_signed_head(
    copy: Path, lab: ModuleType
):
    """Whoever can write the store can make it fit itself, but not the head that was signed."""
    database = sqlite3.connect(copy / "entries.sqlite")
    database.execute("DELETE FROM entries WHERE idx = 299")
    trainer = lab.Lab()
    trainer.opening()
    trainer.train(1, 1, 296)
    forged: Envelope = trainer.step(1, 297, loss="0x1.8000000000000p+3")
    row = (299, forged.record_hash(), forged.to_bytes())
    database.execute("INSERT INTO entries VALUES (?, ?, ?)", row)
    from attest.merkle import Frontier, leaf_hash

    frontier = Frontier()
    for (leaf,) in database.execute("SELECT leaf FROM entries ORDER BY idx"):
        frontier.append(leaf_hash(leaf))
    database.execute("UPDATE tree SET root = ?", (frontier.root(),))
    database.commit()
    database.close()
    refused(copy, check="signed root")


def test_forged_signature_is_found_by_fsck(tmp_path: Path, lab: ModuleType):
    """Opening checks hashes; fsck judges every record again, signatures too."""
    trainer = lab.Lab()
    with LocalLog.create(tmp_path / "log", lab.key("log"), lab.key("witness"), ORIGIN) as log:
        log.append([*trainer.opening(), trainer.step(1, 1)], keys=[trainer.author])
    database = sqlite3.connect(tmp_path / "log" / "entries.sqlite")
    forged = Envelope(trainer.steps[1][1].payload, trainer.genesis.signatures)
    from attest.merkle import leaf_hash, tree_root

    leaves = [e.to_bytes() for e in (*trainer.opening(), forged)]
    database.execute("UPDATE entries SET leaf = ? WHERE idx = 3", (leaves[3],))
    root = tree_root([leaf_hash(leaf) for leaf in leaves])
    database.execute("UPDATE tree SET root = ?", (root,))
    database.commit()
    database.close()
    LocalLog.open(tmp_path / "log").close()
    with pytest.raises(RefusedError, match="entry 3 is damaged.*signers"):
        fsck(tmp_path / "log")


def test_bit_flipped_in_any_tile_or_bundle_is_refused(copy: Path):
    files = [path for path in (copy / "tile").rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        data = path.read_bytes()
        for position in (0, len(data) - 1):
            flip(path, position)
            refused(copy, check="tile")
            path.write_bytes(data)
        path.unlink()
        refused(copy, check="tile")
        path.write_bytes(data)
    fsck(copy)


def test_stray_or_stale_tile_that_does_not_fit_is_found_by_fsck(copy: Path):
    partial = next(path for path in (copy / "tile" / "0").rglob("*.p/*"))
    for name, data in (("7", bytes(7 * 32)), ("6", partial.read_bytes()[:7])):
        stray = partial.with_name(name)
        stray.write_bytes(data)
        with pytest.raises(RefusedError) as refusal:
            fsck(copy)
        assert refusal.value.check == "tile"
        stray.unlink()
    partial.with_name("7").write_bytes(partial.read_bytes()[: 7 * 32])
    fsck(copy)
    beyond = copy / "tile" / "0" / "005"
    beyond.write_bytes(bytes(8192))
    with pytest.raises(RefusedError):
        fsck(copy)


def test_bit_flipped_in_the_signed_head_or_the_keys_is_refused(copy: Path):
    for name in ("head", "log.json"):
        path = copy / name
        data = path.read_bytes()
        for position in range(3, len(data), 11):
            flip(path, position)
            refused(copy)
            path.write_bytes(data)


def test_keys_that_changed_places_are_refused(copy: Path):
    path = copy / "log.json"
    names = json.loads(path.read_text())
    path.write_bytes(canonical.encode({"log": names["witness"], "witness": names["log"]}))
    for read in (LocalLog.open, fsck):
        with pytest.raises(FormatError, match="wrong algorithm"):
            read(copy)


def test_bit_flipped_in_the_published_checkpoint_is_found_by_fsck(copy: Path):
    path = copy / "checkpoint"
    data = path.read_bytes()
    for position in range(3, len(data), 47):
        flip(path, position)
        with pytest.raises(AttestError):
            fsck(copy)
        with LocalLog.open(copy) as log, pytest.raises(AttestError):
            log.published()
        path.write_bytes(data)


def test_published_checkpoint_of_another_tree_is_found_by_fsck(copy: Path, lab: ModuleType):
    from attest.checkpoint import Checkpoint, sign_checkpoint
    from attest.cosignature import cosign

    for size in (7, SIZE + 1):
        note = sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), lab.key("log"))
        line = cosign(note.text, f"{ORIGIN}/witness", lab.key("witness"), 1_790_000_000)
        (copy / "checkpoint").write_bytes(note.signed_also(line).to_bytes())
        with pytest.raises(RefusedError):
            fsck(copy)


# --- old copies ---


def test_store_restored_from_an_old_copy_is_behind_its_head(
    log: LocalLog, run_directory: Path, lab: ModuleType, tmp_path: Path
):
    directory, backup = run_directory / "log", tmp_path / "backup"
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    log.checkpoint()
    log.close()
    shutil.copytree(directory, backup)
    with LocalLog.open(directory) as again:
        again.append(trainer.train(1, 4, 9))
        again.checkpoint()
    for name in ("entries.sqlite", "checkpoint"):
        shutil.copy(backup / name, directory / name)
    shutil.rmtree(directory / "tile")
    shutil.copytree(backup / "tile", directory / "tile")
    refused(directory, check="behind head")
    with pytest.raises(RefusedError, match="restored from an old copy"):
        LocalLog.open(directory)
    # With its head restored too, the witness still remembers.
    shutil.copy(backup / "head", directory / "head")
    with LocalLog.open(directory) as forking:
        forking.append([trainer.step(1, 4, loss="0x1.8000000000000p+3")])
        with pytest.raises(RefusedError) as refusal:
            forking.checkpoint()
        assert refusal.value.check == "rollback"


def test_store_swapped_under_an_open_log_is_noticed(
    log: LocalLog, run_directory: Path, lab: ModuleType, tmp_path: Path
):
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    database = sqlite3.connect(run_directory / "log" / "entries.sqlite")
    database.execute("DELETE FROM entries WHERE idx >= 4")
    database.execute("UPDATE tree SET size = 4")
    database.commit()
    database.close()
    with pytest.raises(RefusedError):
        log.append([trainer.step(1, 4)])


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE tree SET root = zeroblob(32)", "root"),
        ("UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE idx = 3) WHERE idx = 5", ""),
    ],
)
def test_store_altered_under_an_open_log_is_noticed(
    log: LocalLog, run_directory: Path, lab: ModuleType, statement: str, check: str
):
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    log.checkpoint()
    database = sqlite3.connect(run_directory / "log" / "entries.sqlite")
    database.execute(statement)
    database.commit()
    database.close()
    if check:
        with pytest.raises(RefusedError) as refusal:
            log.append([trainer.step(1, 4)])
        assert refusal.value.check == check
    else:
        with pytest.raises(RefusedError):
            log.inclusion(5, 6)


def test_missing_store_is_not_replaced_by_an_empty_one(copy: Path):
    (copy / "entries.sqlite").unlink()
    for read in (LocalLog.open, fsck):
        with pytest.raises(InputError, match="no log store"):
            read(copy)
    assert not (copy / "entries.sqlite").exists()


def test_damage_that_only_the_database_can_see_is_found_by_fsck(copy: Path):
    flip(copy / "entries.sqlite", 39)  # the header's count of free pages
    with pytest.raises(RefusedError) as refusal:
        fsck(copy)
    assert refusal.value.check == "store"


def test_store_says_which_entry_it_lacks(copy: Path):
    database = sqlite3.connect(copy / "entries.sqlite")
    database.execute("DELETE FROM entries WHERE idx = 5")
    database.commit()
    database.close()
    store = SqliteStore(copy / "entries.sqlite")
    for start, stop, lacking in ((0, 10, 5), (298, SIZE + 1, 300)):
        with pytest.raises(RefusedError, match=f"lacks entry {lacking}"):
            list(store.entries(start, stop))
    store.close()


# --- full disks ---


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let no file grow beyond `size`, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_one_line_and_loses_nothing_acknowledged(
    log: LocalLog, run_directory: Path, lab: ModuleType
):
    directory = run_directory / "log"
    trainer = lab.Lab()
    log.append(trainer.opening(), keys=[trainer.author])
    steps = trainer.train(1, 1, 400)
    acknowledged: dict[bytes, int] = {}
    with (
        files_limited_to((directory / "entries.sqlite-wal").stat().st_size + 300_000),
        pytest.raises(InputError, match="free or check the disk") as failure,
    ):
        for start in range(0, 400, 20):
            batch = steps[start : start + 20]
            acknowledged |= dict(
                zip((e.record_hash() for e in batch), log.append(batch), strict=True)
            )
    assert "\n" not in str(failure.value)
    assert acknowledged
    assert all(log.index_of(record) == index for record, index in acknowledged.items())
    assert log.append(steps) == list(range(3, 403))
    log.checkpoint()
    log.close()
    with LocalLog.open(directory) as again:
        assert all(again.index_of(record) == index for record, index in acknowledged.items())
    fsck(directory)


@pytest.mark.parametrize("writes", range(7))
def test_disk_that_fills_during_a_checkpoint_leaves_a_log_that_goes_on(
    log: LocalLog,
    run_directory: Path,
    lab: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
):
    directory = run_directory / "log"
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 260)], keys=[trainer.author])
    left = [writes]
    real, create = durable_file.replace_file, durable_file.create_files

    def take(path: Path) -> None:
        if left[0] == 0:
            raise InputError(f"cannot write {path}: no space left")
        left[0] -= 1

    def until_full(path: Path, data: bytes) -> None:
        take(path)
        real(path, data)

    def create_until_full(contents: Mapping[Path, bytes]) -> set[Path]:
        for path, data in contents.items():
            take(path)
            create({path: data})
        return set()

    with monkeypatch.context() as patch:
        for module in ("tile_files", "witness", "log.head_store"):
            patch.setattr(f"attest.{module}.replace_file", until_full)
        patch.setattr("attest.tile_files.create_files", create_until_full)
        with pytest.raises(InputError, match="no space left"):
            log.checkpoint()
    fsck(directory)
    LocalLog.open(directory).close()
    log.append(trainer.train(1, 261, 270))
    assert publisher.Note.from_bytes(log.checkpoint()).text.split("\n")[1] == "273"
    fsck(directory)


def test_full_disk_under_a_tile_is_one_line(tmp_path: Path):
    from attest.tile_files import TileDirectory

    files = TileDirectory(tmp_path)
    with files_limited_to(1000), pytest.raises(InputError, match="cannot write"):
        files.write([TileFile("tile/0/000", bytes(8192))])
    assert list((tmp_path / "tile" / "0").iterdir()) == []
