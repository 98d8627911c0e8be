"""Two worker processes under Ray: one mesh, and a death that changes no bit of the result."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.attested_run import genesis_of
from anh_jax.run_directory import RunDirectory
from attest.log.sequencer import LocalLog
from attest.statements import Attempt, Final, Segment, Step, decode_statement

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TWO = ("--workers", "2")


def final_of(run: Path) -> Final:
    final = decode_statement(RunDirectory.open(run).statement("final").payload)
    assert isinstance(final, Final)
    return final


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory, small: str, anh_in: Any) -> Path:
    """Return a run of two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "small.yaml").write_text(small)
    done = anh_in(folder)("train", "small.yaml", *TWO, "--run-dir", "run", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "mesh formed: 2 processes, 2 devices" in done.stderr
    return folder / "run"


def test_both_workers_sign_every_step_of_one_mesh(clean: Path, anh: Any) -> None:
    run = RunDirectory.open(clean)
    attempt = decode_statement(run.statement("attempt-1").payload)
    assert isinstance(attempt, Attempt)
    assert attempt.processes == 2
    assert attempt.mesh.data == 2
    assert genesis_of(run).execution_class["processes"] == "2"
    lines = [(clean / "steps" / f"1-{rank}.jsonl").read_bytes().splitlines() for rank in (0, 1)]
    assert len(lines[0]) == len(lines[1]) == 24
    verified = anh("verify", str(clean / "run.proof"), "--policy", str(clean / "policy.toml"))
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_changes_no_bit_of_the_result(
    rank: int, clean: Path, config: Path, anh: Any, wait_for: Any, steps_taken: Any
) -> None:
    def past_checkpoint(run: Path) -> bool:
        return steps_taken(run) >= 10 and (run / "checkpoints" / "step_8").exists()

    run = anh.folder / "killed"
    slow = ("evaluation.every_steps=1", "checkpoints.every_steps=8")
    process = anh.start("train", str(config), *TWO, *slow, "--run-dir", "killed")
    err = outlived(process, run, rank, lambda: wait_for(lambda: past_checkpoint(run), process, 300))
    assert "resumed at step" in err
    assert final_of(run).state_root == final_of(clean).state_root
    assert final_of(run).files == final_of(clean).files
    second = decode_statement(RunDirectory.open(run).statement("attempt-2").payload)
    assert isinstance(second, Attempt)
    assert second.reason == "worker lost"


@pytest.mark.full
def test_the_devices_of_two_workers_sign_what_their_hosts_sign(
    clean: Path, config: Path, anh: Any, line_of: Any, facts: Any
) -> None:
    device = ("attest.digester=device", "--run-dir", "device")
    done = anh("train", str(config), *TWO, *device, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "digests: device, blake3, cpu (rank 1)" in done.stderr
    rows = [
        [facts(signed.row) for signed in line_of(RunDirectory.open(run)).rows]
        for run in (clean, anh.folder / "device")
    ]
    assert len(rows[0]) == 24
    assert rows[0] == rows[1]


def outlived(process: subprocess.Popen[str], run: Path, rank: int, wait: Callable[[], None]) -> str:
    """Kill a worker once `wait` returns; return what the run says after it has ended well."""
    try:
        wait()
        os.kill(worker_pid(run, rank), signal.SIGKILL)
        _, err = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
    assert process.returncode == 0, err
    return err


def worker_pid(run: Path, rank: int) -> int:
    """Return the process id that the worker of this rank wrote when it claimed the rank."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in (run / "attempts").glob(f"*-{rank}.claim*"):
            if found := re.search(r"process (\d+)", path.read_text()):
                return int(found[1])
        time.sleep(0.05)
    listing = subprocess.run(["ls", str(run / "attempts")], capture_output=True, text=True)
    raise AssertionError(listing.stdout)


@pytest.mark.full
def test_two_workers_log_segments_and_lose_no_bit_when_one_dies(
    clean: Path, config: Path, anh: Any, wait_for: Any, steps_taken: Any
) -> None:
    def past_checkpoint(run: Path) -> bool:
        return steps_taken(run) >= 10 and (run / "checkpoints" / "step_8").exists()

    run = anh.folder / "killed"
    slow = ("evaluation.every_steps=1", "attest.segments=every 3")
    process = anh.start("train", str(config), *TWO, *slow, "--run-dir", "killed")
    err = outlived(process, run, 1, lambda: wait_for(lambda: past_checkpoint(run), process, 300))
    assert "logged: a segment for 3 or more steps" in err
    assert final_of(run).state_root == final_of(clean).state_root
    # Both hosts signed each row, the first alone each segment, and the log has no step.
    assert (run / "steps" / "2-1.jsonl").exists() and (run / "steps" / "2-segments.jsonl").exists()
    with LocalLog.open(run / "log") as log:
        said = [decode_statement(envelope.payload) for envelope in log.entries(0, log.size)]
    assert not any(isinstance(statement, Step) for statement in said)
    assert {s.last for s in said if isinstance(s, Segment)} >= {8, 24}
    assert anh("audit", "killed", "--samples", "2").returncode == 0
    verified = anh("verify", "killed/run.proof", "--policy", "killed/policy.toml")
    assert verified.returncode == 0, verified.stderr
    # Without the second host's rows there is nothing that both hosts stand for.
    (run / "steps" / "2-1.jsonl").unlink()
    audited = anh("audit", "killed", "--samples", "2")
    assert audited.returncode == 1
    assert "2-1.jsonl" in audited.stdout
