"""Several processes, and processes that are killed: every acknowledged index is final."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import IO

import pytest

from attest import merkle
from attest.checkpoint import open_checkpoint
from attest.log.fsck import fsck
from attest.log.sequencer import LocalLog

WRITER = Path(__file__).resolve().parent / "writer.py"
ROOT = Path(__file__).resolve().parents[3]


def start(directory: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(directory), name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def printed(writer: subprocess.Popen[str]) -> IO[str]:
    assert writer.stdout is not None
    return writer.stdout


def acknowledged(output: str) -> dict[int, str]:
    """Read whole lines only: what a killed process was about to print was not acknowledged."""
    lines = (line.split() for line in output.split("\n")[:-1])
    return {int(index): record for index, record in lines}


pytestmark = pytest.mark.parametrize("places", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def directory(log: LocalLog, run_directory: Path, lab: ModuleType) -> Path:
    """Return the directory of a closed log that holds a contract."""
    trainer = lab.Lab()
    log.append([trainer.published], keys=[trainer.author])
    log.close()
    return run_directory / "log"


def test_concurrent_writers_get_contiguous_indices_without_a_double(directory: Path):
    count = 40
    writers = [start(directory, name, count) for name in ("acme", "globex", "initech")]
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], outputs
    given = [acknowledged(out) for out, _ in outputs]
    assert sorted(index for indices in given for index in indices) == list(range(1, 3 * count + 1))
    with LocalLog.open(directory) as log:
        for indices in given:
            for index, record in indices.items():
                assert log.entry(index).record_hash().hex() == record
        log.checkpoint()
    report = fsck(directory)
    assert report.size == report.head.size == 3 * count + 1


def killed_rounds(directory: Path, rounds: int) -> None:
    """Kill two writers at a random moment, again and again; check every index they printed."""
    choose = random.Random(rounds)
    known: dict[int, str] = {}
    heads = [(0, merkle.EMPTY_ROOT)]
    for number in range(rounds):
        with (
            start(directory, f"auditor {number}", 100_000) as one,
            start(directory, f"other auditor {number}", 100_000) as other,
        ):
            begun = [(writer, printed(writer).readline()) for writer in (one, other)]
            time.sleep(choose.uniform(0, 0.25))
            for writer, _ in begun:
                os.kill(writer.pid, signal.SIGKILL)
            # Not `communicate`, which passes over what `readline` has read ahead.
            outputs = [first + printed(writer).read() for writer, first in begun]
        for writer, output in zip((one, other), outputs, strict=True):
            assert writer.returncode == -signal.SIGKILL
            fresh = acknowledged(output)
            assert fresh and not fresh.keys() & known.keys()
            known |= fresh
        with LocalLog.open(directory) as log:
            assert all(log.entry(i).record_hash().hex() == r for i, r in known.items())
            head = open_checkpoint(log.checkpoint(), log.names.log)
            for size, root in heads:
                proof = log.consistency(size, head.size)
                merkle.verify_consistency(size, head.size, proof, root, head.root)
            heads.append((head.size, head.root))
        fsck(directory)
    assert len(known) > rounds


def test_every_index_acknowledged_before_a_kill_survives(directory: Path):
    killed_rounds(directory, 3)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_index_acknowledged_before_many_kills_survives(directory: Path):
    killed_rounds(directory, 60)
