"""`anh train` from the outside: what it leaves behind, and what it says when it cannot."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.run_directory import RunDirectory
from attest.statements import Final, decode_statement
from launch.cli import run


def test_a_run_leaves_every_file_of_the_run_directory(finished: RunDirectory) -> None:
    names = {path.name for path in finished.root.iterdir()}
    assert {
        "contract.json", "config.yaml", "programs", "policy.toml", "keys", "log", "steps",
        "statements", "checkpoints", "export", "metrics.jsonl", "run.proof",
    } <= names  # fmt: skip


def test_private_keys_are_readable_by_their_owner_alone(finished: RunDirectory) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (finished.root / "keys").iterdir()}
    assert {"author", "run", "log", "witness", "worker-1-0"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_metrics_hold_one_row_a_step(finished: RunDirectory) -> None:
    rows = list(finished.read_metrics())
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert all({"step", "loss", "seconds", "digest_seconds"} <= set(row) for row in rows)
    assert "holdout_accuracy" in rows[-1]


def test_verify_answers_for_the_run_at_once(finished: RunDirectory, anh: Any) -> None:
    proof, policy = finished.root / "run.proof", finished.root / "policy.toml"
    done = anh("verify", str(proof), "--policy", str(policy))
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "logged (self): integrity, not honesty"


def test_final_names_the_exported_weights(finished: RunDirectory) -> None:
    final = decode_statement(finished.statement("final").payload)
    assert isinstance(final, Final)
    (file,) = final.files
    data = (finished.export / file.name).read_bytes()
    assert file.sha256 == hashlib.sha256(data).hexdigest()


def test_another_run_of_the_same_contract_has_the_same_rows(
    finished: RunDirectory, config: Path, anh: Any, line_of: Callable[..., Any], facts: Any
) -> None:
    again = anh("train", str(config), "--run-dir", "again")
    assert again.returncode == 0, again.stderr
    first, second = line_of(finished), line_of(RunDirectory.open(anh.folder / "again"))
    assert [facts(signed.row) for signed in first.rows] == [
        facts(signed.row) for signed in second.rows
    ]
    assert first.run != second.run


def test_attestation_does_not_change_training(
    finished: RunDirectory, config: Path, anh: Any
) -> None:
    off = anh("train", str(config), "attest.mode=off", "--run-dir", "off")
    assert off.returncode == 0, off.stderr
    exported = "export/model.safetensors"
    assert (anh.folder / "off" / exported).read_bytes() == (finished.root / exported).read_bytes()
    assert not list((anh.folder / "off" / "steps").iterdir())


def test_json_output_is_one_object(config: Path, anh: Any) -> None:
    done = anh("train", str(config), "training.steps=2", "--json", "--run-dir", "j")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "logged (self): integrity, not honesty"


def test_print_config_names_every_group_and_trains_nothing(config: Path, anh: Any) -> None:
    done = anh("train", str(config), "--print-config")
    assert done.returncode == 0
    assert "learning_rate: 0.01" in done.stdout
    assert not (anh.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.yaml"], "absent.yaml"),
        (["small.yaml", "optimizer.learning_rte=1"], "did you mean learning_rate?"),
        (["small.yaml", "training.steps=none"], "training.steps"),
        (["small.yaml", "--runner", "local", "--workers", "2"], "--workers 2"),
        (["small.yaml", "--run-dir", "full"], "anh resume full"),
        (["small.yaml", "training.batch_size=100000"], "training.batch_size"),
        (["small.yaml", "plan.microbatch=5"], "plan.microbatch"),
        (["small.yaml", "mesh.data=64"], "mesh"),
    ],
)
def test_a_run_that_cannot_start_says_why_in_one_line(
    arguments: list[str],
    words: str,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(config.parent)
    Path("full").mkdir()
    Path("full", "something").touch()
    assert run(["train", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said


def test_resume_refuses_a_finished_run(finished: RunDirectory, anh: Any) -> None:
    done = anh("resume", str(finished.root))
    assert done.returncode == 2
    assert "final" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
