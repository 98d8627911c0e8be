"""A run that is stopped, killed or out of disk loses nothing that was signed."""

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anh_jax.run_directory import RunDirectory

LONG = ("training.steps=4000", "checkpoints.every_steps=10")


@pytest.mark.parametrize("digester", ["host", "device"])
def test_a_killed_run_resumes_to_the_uninterrupted_rows(
    digester: str, finished: RunDirectory, config: Path, anh: Any, wait_for: Any,
    steps_taken: Any, end: Any, line_of: Any, facts: Any,
) -> None:  # fmt: skip
    run = anh.folder / "killed"
    # Evaluating after every step slows the loop enough to hit it between two checkpoints.
    changes = ("evaluation.every_steps=1", f"attest.digester={digester}")
    process = anh.start("train", str(config), *changes, "--run-dir", "killed")
    checkpoint = run / "checkpoints" / "step_8"
    wait_for(lambda: steps_taken(run) >= 12 and checkpoint.exists(), process, 200)
    end(process, signal.SIGKILL)
    before = steps_taken(run)
    assert 12 <= before < 24
    done = anh("resume", "killed")
    assert done.returncode == 0, done.stderr
    assert "state: equal, keys: equal, learning rate: equal" in done.stderr
    line = line_of(RunDirectory.open(run))
    uninterrupted = line_of(finished)
    assert [facts(s.row) for s in line.rows] == [facts(s.row) for s in uninterrupted.rows]
    # The rows that were taken again are the very bytes that the killed attempt had signed.
    assert line.stale
    assert line.divergences == ()
    for signed in line.stale:
        assert signed.row.to_bytes() == line.rows[signed.row.step - 1].row.to_bytes()
    verified = anh("verify", "killed/run.proof", "--policy", "killed/policy.toml")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "2 attempts" in verified.stdout


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    config: Path, anh: Any, wait_for: Any, steps_taken: Any, end: Any, line_of: Any
) -> None:
    run = anh.folder / "early"
    rare = ("checkpoints.every_steps=1000", "evaluation.every_steps=1")
    process = anh.start("train", str(config), *rare, "--run-dir", "early")
    wait_for(lambda: steps_taken(run) >= 3, process, 200)
    end(process, signal.SIGKILL)
    done = anh("resume", "early")
    assert done.returncode == 0, done.stderr
    line = line_of(RunDirectory.open(run))
    assert {signed.attempt for signed in line.rows} == {2}
    assert line.stale
    assert line.divergences == ()


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    config: Path, anh: Any, wait_for: Any, steps_taken: Any
) -> None:
    # Devices' digests are signed a step late; what is under way is finished before the end.
    late = "attest.digester=device"
    process = anh.start("train", str(config), *LONG, late, "--run-dir", "stopped")
    wait_for(lambda: steps_taken(anh.folder / "stopped") >= 3, process, 200)
    second = anh("resume", "stopped")  # two drivers would sign two attempts of one number
    assert second.returncode == 2
    assert "another process trains this run" in second.stderr
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "anh resume stopped" in out
    assert "Traceback" not in err
    done = anh("resume", "stopped", "training.steps=4001")
    assert done.returncode == 2
    assert "training.steps" in done.stderr
    run = RunDirectory.open(anh.folder / "stopped")
    signed = (run.root / "steps" / "1-0.jsonl").read_bytes().count(b"\n")
    names = sorted(int(path.name.split("_")[1]) for path in run.checkpoints.glob("step_*"))
    assert names[-1] == signed == steps_taken(run.root)


def test_a_run_out_of_disk_ends_in_one_line_and_keeps_what_is_signed(
    config: Path, anh: Any
) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from launch.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    arguments = ("train", str(config), *LONG, "--run-dir", "full")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=anh.folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len([x for x in done.stderr.splitlines() if x.startswith("anh: ")]) == 1
    path = anh.folder / "full" / "steps" / "1-0.jsonl"
    if path.exists():
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        assert torn == b""
        assert whole.count(b"\n") > 3
