"""A run with `attest.mode: off` is never called unfinished, unbegun or missing a file."""

import json
import shutil
from pathlib import Path

import pytest

from anh_jax.experiment import experiment_yaml, load_experiment
from launch.cli import run

DIGITS = Path(__file__).parents[2] / "configs/digits.yaml"


@pytest.fixture
def unsigned(finished) -> Path:
    root: Path = finished.root
    for name in ("statements", "steps"):
        shutil.rmtree(root / name)
        (root / name).mkdir()
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 13)]
    (root / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    experiment = load_experiment(DIGITS, ("attest.mode=off", "training.steps=12"))
    (root / "config.yaml").write_text(experiment_yaml(experiment))
    return root


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "{run}", "--operator", "acme"],
        ["verify", "{run}/run.proof", "--policy", "{policy}"],
    ],
    ids=lambda words: words[0],
)
def test_audit_and_verify_say_that_nothing_was_signed(
    words: list[str],
    unsigned: Path,
    proven,
    key_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {"run": str(unsigned), "policy": str(proven.root / "policy.toml")}
    assert run([word.format(**values) for word in words]) == 2
    error = capsys.readouterr().err
    assert "nothing was signed (attest.mode: off)" in error and error.count("\n") == 1


def test_report_says_finished_and_that_nothing_was_signed(
    unsigned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(unsigned)]) == 0
    assert "(finished; nothing was signed (attest.mode: off))" in capsys.readouterr().out
    page = (unsigned / "report.html").read_text()
    assert "unfinished" not in page and "when the run ends" not in page
    assert run(["report", str(unsigned), "--card"]) == 0
    assert "No run proof: finished; nothing was signed" in capsys.readouterr().out


def test_report_of_one_that_was_stopped_says_how_far_it_came(unsigned: Path) -> None:
    rows = (unsigned / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unsigned / "metrics.jsonl").write_text("".join(rows[:9]))
    assert run(["report", str(unsigned)]) == 0
    page = (unsigned / "report.html").read_text()
    assert "unfinished: 9 of 12 steps; nothing was signed (attest.mode: off)" in page
