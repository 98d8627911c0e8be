"""A small real run, stopped halfway and closed, and what tests of audits do with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from attest.log.sequencer import LocalLog
from attest.policy import load_policy
from attest.statements import decode_statement
from launch.cli import run
from launch.runner_local import LocalReporter

# Before any test asks jax for its devices: a mesh of two needs two, and one process has one pool.
if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)

STEPS = 24
CONFIG = f"""
model: {{name: mlp, hidden: [16], classes: 10}}
data: {{name: digits, holdout: {{fraction: 0.2}}}}
loss: {{name: softmax_cross_entropy}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.01}}
training: {{steps: {STEPS}, batch_size: 48, seed: 5}}
properties: [{{name: accuracy, numerator: 1, denominator: 2, margin: 3}}]
checkpoints: {{every_steps: 8, keep: 9}}
"""


def stop_after(step: int) -> pytest.MonkeyPatch:
    """Let the next training stop after a step, as Ctrl-C does; undo it afterwards."""
    patch = pytest.MonkeyPatch()
    asked = []

    def should_stop(self: LocalReporter) -> bool:
        asked.append(step)
        self.stopped = len(asked) == step
        return self.stopped

    patch.setattr(LocalReporter, "should_stop", should_stop)
    return patch


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def halfway(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was stopped after step 13; step 9 on will be taken again."""
    root = tmp_path_factory.mktemp("halfway") / "run"
    patch = stop_after(13)
    try:
        assert run(["train", str(config), "--run-dir", str(root)]) == 130
    finally:
        patch.undo()
    shutil.rmtree(root / "checkpoints" / "step_13")
    return root


@pytest.fixture(scope="session")
def closed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a final run that nobody has audited."""
    root = tmp_path_factory.mktemp("closed") / "run"
    assert run(["train", str(config), "--run-dir", str(root)]) == 0
    return root


@pytest.fixture
def fresh(closed: Path, tmp_path: Path, key_home: Path) -> Path:
    """Return a copy of the final run, to audit."""
    return Path(shutil.copytree(closed, tmp_path / "run"))


@pytest.fixture
def going(halfway: Path, tmp_path: Path, key_home: Path) -> Path:
    """Return a copy of the run that was stopped halfway."""
    return Path(shutil.copytree(halfway, tmp_path / "run"))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs a command and gives its exit code and JSON answer."""

    def asked(*words: Any) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return asked


@pytest.fixture
def logged() -> Callable[[Path], list[Any]]:
    """Return a function that reads every statement in a run's log."""

    def read(root: Path) -> list[Any]:
        with LocalLog.open(root / "log") as log:
            return [decode_statement(envelope.payload) for envelope in log.entries(0, log.size)]

    return read


@pytest.fixture
def make_keys(key_home: Path) -> Callable[..., None]:
    """Return a function that makes keys of one's own."""

    def make(*names: str) -> None:
        for name in names:
            assert run(["key", "new", name]) == 0

    return make


@pytest.fixture
def naming(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a policy: the run's log, and other operators beside."""

    def write(root: Path, *more: str) -> Path:
        own = load_policy(root / "policy.toml")
        witness = f"{own.witnesses[0].key.to_text()}=w.example"
        arguments = ["--like", str(root / "policy.toml"), "--witness", witness, *more]
        assert run(["policy", "new", str(tmp_path / "mine.toml"), *arguments]) == 0
        return tmp_path / "mine.toml"

    return write
