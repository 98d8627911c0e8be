"""`anh show` prints what was signed for one step."""

import json

import pytest

from launch.cli import run
from launch.step_numbers import read_step, retained_steps


def test_every_signed_number_of_a_step_is_shown(
    finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(finished.root), "--step", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    row = finished.rows[2]
    assert shown["run"] == finished.run_id
    assert shown["stateRoot"] == row.state_root
    assert shown["row"] == {
        "attempt": 1,
        "record": finished.envelopes[5].record_hash().hex(),
        "rowHash": row.hash().hex(),
        "prev": finished.rows[1].hash().hex(),
        "gradientRoot": row.gradient_root,
        "batchRoot": row.batch_root,
        "loss": row.loss,
        "globalNorm": row.scalars.global_norm,
        "weight": row.scalars.weight,
        "finite": 1,
        "bound": row.bound,
    }
    assert shown["metrics"]["digest_seconds"] == 0.0011


def test_text_gives_the_mean_loss_beside_the_committed_sum(
    finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(finished.root), "--step", "4"]) == 0
    shown = capsys.readouterr().out
    row = finished.rows[3]
    assert f"{float.fromhex(row.loss) / 64:.6g}" in shown
    assert row.loss in shown and row.gradient_root in shown
    assert "replay" in shown and "from state 0" in shown


def test_fresh_state_is_shown_from_genesis(finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(finished.root), "--step", "0"]) == 0
    assert finished.run_id in capsys.readouterr().out


def test_step_off_the_line_is_told_apart(unfinished, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(unfinished.root), "--step", "7"]) == 0
    shown = capsys.readouterr().out
    assert "attempt 2" in shown
    assert "attempt 1 also took this step: equal row" in shown
    assert [row.attempt for row in read_step(unfinished.root, 7).others] == [1]
    assert read_step(unfinished.root, 5).signed.attempt == 1


@pytest.mark.parametrize("step", ["13", "-1"])
def test_step_outside_the_contract_is_refused(
    step: str, finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(finished.root), "--step", step]) == 2
    assert "steps 0 to 12" in capsys.readouterr().err


def test_step_not_signed_yet_is_refused(unfinished, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(unfinished.root), "--step", "11"]) == 2
    assert "signed 9 steps" in capsys.readouterr().err


def test_replay_starts_from_the_newest_checkpoint_before_the_step(finished) -> None:
    for name in ("step_4", "step_8", "step_8.orbax-checkpoint-tmp-1", "notes"):
        (finished.root / "checkpoints" / name).mkdir()
    from anh_jax.run_directory import RunDirectory

    assert retained_steps(RunDirectory.open(finished.root)) == (4, 8)
    starts = {step: read_step(finished.root, step).checkpoint for step in (0, 4, 5, 8, 9)}
    assert starts == {0: None, 4: None, 5: 4, 8: 4, 9: 8}
