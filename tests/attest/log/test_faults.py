"""What goes wrong around a log: torn files, wrong clocks, servers that stop, and the end of it."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.checkpoint import open_checkpoint
from attest.cosignature import open_cosigned
from attest.envelope import Envelope
from attest.errors import InputError, RefusedError
from attest.log.admission import Candidate
from attest.log.fsck import fsck
from attest.log.places import Places
from attest.log.sequencer import LocalLog
from attest.log.submission import Submission
from attest.rejections import RejectedError

ORIGIN = "log.example/runs"


@pytest.fixture
def trained(log: LocalLog, lab: ModuleType) -> Any:
    """Log a run of three steps."""
    trainer = lab.Lab()
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    log.checkpoint()
    return trainer


# --- torn write-ahead logs ---


def copy_of(directory: Path, to: Path, wal: bytes) -> Path:
    """Return a log as a crash leaves it: what is on the disk, with this write-ahead log."""
    shutil.copytree(directory.parent / "keys", to / "keys")
    shutil.copytree(directory, to / "log", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    (to / "log" / "entries.sqlite-wal").write_bytes(wal)
    return to / "log"


def test_torn_end_of_the_write_ahead_log_costs_no_acknowledged_record(
    log: LocalLog, trained: Any, run_directory: Path, tmp_path: Path
):
    """A commit of which a part alone reached the disk was never acknowledged, and is not there."""
    directory = run_directory / "log"
    wal = directory / "entries.sqlite-wal"
    assert log.append([trained.step(1, 4)]) == [6]
    before = wal.read_bytes()
    late = trained.train(1, 5, 40)
    log.append(late)
    after = wal.read_bytes()
    assert after.startswith(before)
    assert len(after) > len(before) + 4096
    step = (len(after) - len(before)) // 6
    for number, end in enumerate([*range(len(before), len(after), step), len(after) - 1]):
        torn = after[:end] + (b"" if number % 2 else bytes(100))
        copy = copy_of(directory, tmp_path / f"torn {number}", torn)
        with LocalLog.open(copy) as again:
            assert again.size == 7
            assert again.append(late) == list(range(7, 43))
            again.checkpoint()
        fsck(copy)
    whole = copy_of(directory, tmp_path / "whole", after)
    with LocalLog.open(whole) as again:
        assert again.size == 43


def test_write_ahead_log_that_lost_what_the_head_covers_is_refused(
    log: LocalLog, trained: Any, run_directory: Path, tmp_path: Path
):
    """The disk has lied about what is on it, or a bit has flipped: that can only be refused."""
    directory = run_directory / "log"
    log.append(trained.train(1, 4, 9))
    log.checkpoint()
    data = (directory / "entries.sqlite-wal").read_bytes()
    middle = len(data) - 3000
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for number, wal in enumerate((data[:-1], data[: len(data) // 2], flipped, b"")):
        copy = copy_of(directory, tmp_path / f"lost {number}", wal)
        with pytest.raises((RefusedError, InputError)):
            LocalLog.open(copy)


# --- clocks ---


def test_clock_that_was_set_back_stops_checkpoints_but_no_record(
    run_directory: Path, lab: ModuleType
):
    directory, trainer, now = run_directory / "log", lab.Lab(), [1_900_000_000.0]
    keys = lab.key("log"), lab.key("witness")
    with LocalLog.create(directory, *keys, ORIGIN, clock=lambda: now[0]) as log:
        log.append(trainer.opening(), keys=[trainer.author])
        first = times(log, log.checkpoint())
        now[0] -= 30.0
        log.append([trainer.step(1, 1)])
        assert times(log, log.checkpoint()) == first
        now[0] -= 3600.0
        assert log.append([trainer.step(1, 2)]) == [4]
        with pytest.raises(RefusedError) as refusal:
            log.checkpoint()
        assert refusal.value.check == "clock"
        assert log.append([trainer.step(1, 3)]) == [5]
        now[0] += 7200.0
        assert times(log, log.checkpoint()) > first
        assert open_checkpoint(log.published(), log.names.log).size == 6
    fsck(directory)


def times(log: LocalLog, note: bytes) -> list[int]:
    held = open_cosigned(note, log.names.log, [log.names.witness])
    return [cosignature.time for cosignature in held.cosignatures]


# --- frozen logs ---


@pytest.mark.parametrize("places", ["sqlite", "postgres"], indirect=True)
def test_frozen_log_takes_nothing_new_and_says_what_it_has(
    log: LocalLog, trained: Any, run_directory: Path
):
    log.append([trained.step(1, 4)])
    with LocalLog.open(run_directory / "log") as other:
        assert not other.frozen
        note = log.freeze()
        assert open_checkpoint(note, log.names.log).size == 7
        assert log.frozen
        assert other.frozen
        new = trained.step(1, 5)
        for each in (log, other):
            with pytest.raises(RejectedError) as refusal:
                each.append([new])
            assert refusal.value.check == "frozen"
            assert each.append([trained.steps[1][4]]) == [6]
        known, fresh = (Candidate.of(e) for e in (trained.steps[1][4], new))
        outcomes = other.submit([Submission((known, fresh)), Submission((known,))])
        assert [outcome.indices for outcome in outcomes] == [(6,), (6,)]
        assert outcomes[0].refusal is not None
        assert outcomes[0].refusal.check == "frozen"
        assert outcomes[1].refusal is None
        assert other.freeze() == other.published() == note
    log.close()
    with LocalLog.open(run_directory / "log") as again:
        assert again.frozen
        assert again.size == 7
    fsck(run_directory / "log")


# --- a database server that stops ---


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
def test_server_restarted_under_load_loses_nothing_acknowledged(
    run_directory: Path, lab: ModuleType, postgres: Any, rounds: int
):
    directory, trainer = run_directory / "log", lab.Lab()
    keys = lab.key("log"), lab.key("witness")
    places = Places(store=postgres.schema())
    with LocalLog.create(directory, *keys, ORIGIN, places=places) as log:
        log.append([trainer.published], keys=[trainer.author])
    writers = [_Writer(directory, lab, name) for name in ("acme", "globex")]
    for writer in writers:
        writer.start()
    for number in range(rounds):
        time.sleep(0.3)
        postgres.stop("immediate" if number % 2 == 0 else "fast")
        postgres.start()
    time.sleep(0.3)
    for writer in writers:
        writer.stopping.set()
        writer.join(60)
    assert [writer.error for writer in writers] == [None, None]
    assert all(writer.interrupted for writer in writers)
    given = [item for writer in writers for item in writer.acknowledged]
    assert len(given) > 4
    with LocalLog.open(directory) as log:
        for index, record in given:
            assert log.index_of(record) == index
        log.checkpoint()
    assert fsck(directory).size >= len(given) + 1


class _Writer(threading.Thread):
    """Log intents one after the other, each until it is acknowledged."""

    def __init__(self, directory: Path, lab: ModuleType, name: str) -> None:
        super().__init__()
        self.acknowledged: list[tuple[int, bytes]] = []
        self.error: Exception | None = None
        self.interrupted = 0
        self.stopping = threading.Event()
        self._log = LocalLog.open(directory)
        self._key = lab.key(name).public
        self._records = self._intents(lab, name)

    def run(self) -> None:
        try:
            with self._log:
                while not self.stopping.is_set() or not self.interrupted:
                    self._insist(next(self._records))
        except Exception as error:
            self.error = error

    def _insist(self, envelope: Envelope) -> None:
        for _ in range(400):
            try:
                (index,) = self._log.append([envelope], keys=[self._key])
                if index % 7 == 0:
                    self._log.checkpoint()
            except InputError:
                self.interrupted += 1
                time.sleep(0.05)
            else:
                self.acknowledged.append((index, envelope.record_hash()))
                return
        raise AssertionError("the server did not come back")

    def _intents(self, lab: ModuleType, name: str) -> Iterator[Envelope]:
        from attest.statements import Intent

        number = 0
        while True:
            nonce = lab.nonce_of(name, number).hex()
            yield lab.signed(Intent("contract", lab.contract().id, name, nonce), name)
            number += 1


# --- what a check of the whole says on its way ---


def test_fsck_says_how_far_it_is_and_checks_beside_writers(
    log: LocalLog, trained: Any, run_directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("attest.log.fsck._TELL_EVERY", 2)
    told: list[tuple[int, int]] = []

    def reached(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            log.append(trained.train(1, 4, 260))
            log.checkpoint()

    report = fsck(run_directory / "log", progress=reached)
    assert told == [(2, 6), (4, 6), (6, 6)]
    assert (report.size, report.head.size) == (6, 6)
    assert 0 < report.records_per_second == 6 / report.seconds
    assert fsck(run_directory / "log").size == 263
