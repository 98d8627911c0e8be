"""A declared bound is a function of the run and the step: a resumed run writes the same rows."""

import signal
from typing import Any

from anh_jax.run_directory import RunDirectory


def test_rows_with_a_measured_bound_are_byte_equal_after_a_crash(
    config: Any, anh: Any, wait_for: Any, steps_taken: Any, end: Any, line_of: Any
) -> None:
    run = anh.folder / "killed"
    # Steps 9 and 10 take what step 6 measured, which only the training checkpoint of step 8 knows.
    changes = ("attest.bound=every 5", "evaluation.every_steps=1", "training.steps=16")
    process = anh.start("train", str(config), *changes, "--run-dir", "killed")
    checkpoint = run / "checkpoints" / "step_8"
    wait_for(lambda: steps_taken(run) >= 11 and checkpoint.exists(), process, 200)
    end(process, signal.SIGKILL)
    done = anh("resume", "killed")
    assert done.returncode == 0, done.stderr
    line = line_of(RunDirectory.open(run))
    assert {9, 10} <= {signed.row.step for signed in line.stale}
    for signed in line.stale:
        assert signed.row.to_bytes() == line.rows[signed.row.step - 1].row.to_bytes()
    assert line.divergences == ()
    bounds = [signed.row.bound for signed in line.rows]
    assert None not in bounds
    found = [float.fromhex(bound) for bound in bounds]
    # A float32 gradient: some 1e-7 of spread, 16 times that declared, far below the cap.
    assert all(2.0**-24 * 16 <= bound < 1e-4 for bound in found)
    assert len(set(found)) > 3


def test_a_run_that_measures_nothing_declares_none(finished: RunDirectory, line_of: Any) -> None:
    assert {signed.row.bound for signed in line_of(finished).rows} == {None}


def test_the_bound_is_fixed_by_genesis(finished: RunDirectory, anh: Any) -> None:
    done = anh("resume", str(finished.root), "attest.bound=every 2")
    assert done.returncode == 2
