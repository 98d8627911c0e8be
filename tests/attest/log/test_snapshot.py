"""What a restart reads after a snapshot, and what it refuses."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.errors import RefusedError
from attest.log import derivation
from attest.log.fsck import fsck
from attest.log.sequencer import LocalLog
from attest.log.snapshot import Snapshot
from attest.log.sqlite_store import SqliteStore
from attest.log.store import StoredEntry


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, lab: ModuleType) -> tuple[Path, Any]:
    """Return a log of 600 records of two attempts with a snapshot at 518, and their trainer."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "keys").mkdir()
    for name in ("log", "witness"):
        lab.key(name).save(folder / "keys" / name)
    keys = lab.key("log"), lab.key("witness")
    with (
        pytest.MonkeyPatch.context() as patch,
        LocalLog.create(folder / "log", *keys, "log.example/runs") as log,
    ):
        patch.setattr("attest.log.sequencer.SNAPSHOT_EVERY", 256)
        return folder, _trained(log, lab)


def _trained(log: LocalLog, lab: ModuleType) -> Any:
    trainer = lab.Lab(workers=2)
    log.append([*trainer.opening(), *trainer.train(1, 1, 9)], keys=[trainer.author])
    log.checkpoint()
    log.append(trainer.train(1, 10, 250))
    log.append([trainer.segment(1, 1, 20), trainer.intent("acme")], keys=[lab.key("acme").public])
    log.append([trainer.attempt(2, after=(1, 240))])
    log.append(trainer.train(2, 241, 502))
    assert log.size == 518
    log.append(trainer.train(2, 503, 503))
    log.append(trainer.train(2, 504, 584))
    log.checkpoint()
    return trainer


@pytest.fixture
def run_directory(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(made[0], tmp_path / "run"))


@pytest.fixture
def trained(made: tuple[Path, Any]) -> Any:
    return made[1]


@pytest.fixture
def store(run_directory: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(run_directory / "log" / "entries.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of entries whose records are read from now on."""
    seen: list[int] = []
    read = derivation.read_record

    def noting(entry: StoredEntry) -> Any:
        seen.append(entry.index)
        return read(entry)

    monkeypatch.setattr(derivation, "read_record", noting)
    return seen


def test_restart_reads_the_records_after_the_snapshot_alone(
    trained: Any, run_directory: Path, store: Any, observed: list[int]
):
    snapshot = Snapshot.from_bytes(store.snapshot())
    assert snapshot.at.size == 518
    with LocalLog.open(run_directory / "log") as again:
        assert observed == list(range(518, 600))
        register = again._derived.register
        # As if there were none.
        store.rows("DELETE FROM snapshot")
        with LocalLog.open(run_directory / "log") as whole:
            assert whole._derived == again._derived
        assert again.last_step(trained.attempts[2].record_hash().hex()) == 584
        workers = list(register.attempts[trained.attempts[2].record_hash().hex()].workers)
        derived = whole._derived.register.attempts[trained.attempts[2].record_hash().hex()]
        assert workers == list(derived.workers)
        assert again.append(trained.train(2, 585, 586)) == [600, 601]
        again.checkpoint()
    fsck(run_directory / "log")


def test_snapshot_is_read_back_as_it_was_written(store: Any, trained: Any):
    data = store.snapshot()
    assert Snapshot.from_bytes(data).to_bytes() == data


def test_bit_flipped_in_a_snapshot_is_refused(trained: Any, run_directory: Path, store: Any):
    data = store.snapshot()
    for position in (0, 63, 64, 65, len(data) // 2, len(data) - 1):
        altered = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        store.rows("UPDATE snapshot SET data = ?", (altered,))
        _refused(run_directory)


def test_snapshot_of_other_entries_is_refused(trained: Any, run_directory: Path, store: Any):
    kept = Snapshot.from_bytes(store.snapshot())
    for at in (
        replace(kept.at, root=bytes(32)),
        replace(kept.at, size=256),
        replace(kept.at, size=601),
    ):
        store.rows("UPDATE snapshot SET data = ?", (replace(kept, at=at).to_bytes(),))
        _refused(run_directory)


def test_register_that_the_entries_do_not_give_is_found_by_fsck(
    trained: Any, run_directory: Path, store: Any
):
    """Opening hashes what the snapshot covers and reads none of it; fsck reads everything."""
    kept = Snapshot.from_bytes(store.snapshot())
    run = trained.run
    kept.register.runs[run] = replace(kept.register.runs[run], reached=7)
    store.rows("UPDATE snapshot SET data = ?", (kept.to_bytes(),))
    LocalLog.open(run_directory / "log").close()
    with pytest.raises(RefusedError, match="not what the first 518 entries give"):
        fsck(run_directory / "log")


@pytest.mark.parametrize("index", [0, 255, 256, 517, 518, 599])
def test_entry_altered_before_or_after_the_snapshot_is_refused(
    trained: Any, run_directory: Path, store: Any, index: int
):
    (leaf,) = store.rows("SELECT leaf FROM entries WHERE idx = ?", (index,))[0]
    altered = leaf[:100] + bytes([leaf[100] ^ 1]) + leaf[101:]
    store.rows("UPDATE entries SET leaf = ? WHERE idx = ?", (altered, index))
    for read in (LocalLog.open, fsck):
        with pytest.raises(RefusedError):
            read(run_directory / "log")


def test_hash_tile_altered_below_the_snapshot_is_refused(trained: Any, run_directory: Path):
    tile = run_directory / "log" / "tile" / "0" / "001"
    data = tile.read_bytes()
    for position in (0, 8191):
        tile.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(RefusedError, match="tile/0/001"):
            LocalLog.open(run_directory / "log")


def test_commit_that_fails_leaves_the_register_as_it_was(
    tmp_path: Path, lab: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """A key and a step of a commit that the disk refused must not be taken for logged."""
    trainer = lab.Lab()
    keys = lab.key("log"), lab.key("witness")
    log = LocalLog.create(tmp_path / "log", *keys, "log.example/runs")
    log.append([*trainer.opening(), trainer.step(1, 1)], keys=[trainer.author])
    before = log._derived.register
    known = (dict(before.roles), dict(before.publics), dict(before.runs), dict(before.attempts))
    steps = [trainer.intent("acme"), *trainer.train(1, 2, 4)]
    with monkeypatch.context() as patch:
        patch.setattr(type(log._store), "append", _full)
        with pytest.raises(OSError, match="no space"):
            log.append(steps, keys=[lab.key("acme").public])
    after = log._derived.register
    assert (after.roles, after.publics, after.runs, after.attempts) == known
    assert log.append(steps, keys=[lab.key("acme").public]) == [4, 5, 6, 7]
    with pytest.raises(RefusedError):
        log.append([trainer.step(1, 5), trainer.step(1, 9)])
    assert log.append([trainer.step(1, 5)]) == [8]
    log.close()


def _full(*_: object) -> None:
    raise OSError("no space")


def _refused(run_directory: Path) -> None:
    for read in (LocalLog.open, fsck):
        with pytest.raises(RefusedError) as refusal:
            read(run_directory / "log")
        assert refusal.value.check == "snapshot"
