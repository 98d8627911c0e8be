"""Small real runs: a two-layer perceptron on a tenth of a second's worth of digits."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from anh_jax.attested_run import run_id
from anh_jax.line import Line, walk_line
from anh_jax.run_directory import RunDirectory
from attest.statements import Row

CONFIG = """
model: {name: mlp, hidden: [16], classes: 10}
data: {name: digits, holdout: {fraction: 0.2}}
loss: {name: softmax_cross_entropy}
optimizer: {name: adamw, learning_rate: 1e-2, schedule: {kind: cosine, warmup_steps: 2}}
training: {steps: 24, batch_size: 32, seed: 3}
properties: [{name: accuracy, numerator: 1, denominator: 2, margin: 3}]
evaluation: {every_steps: 12}
checkpoints: {every_steps: 8, keep: 3}
"""


@dataclass(frozen=True)
class Anh:
    """Runs the command line in a process of its own, from a folder of its own."""

    folder: Path

    def __call__(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launch", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "launch", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of the small experiment's file."""
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def anh(tmp_path: Path) -> Anh:
    return Anh(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return one uninterrupted run of the small experiment."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(CONFIG)
    done = Anh(folder)("train", "small.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    return RunDirectory.open(folder / "run")


def line_of(run: RunDirectory) -> Line:
    """Return the run's line."""
    return walk_line(run, run_id=bytes.fromhex(run_id(run)))


def facts(row: Row) -> tuple[object, ...]:
    """Return what a row says beside the names of its run and of the row before it."""
    return (
        row.step,
        row.gradient_root,
        row.state_root,
        row.batch_root,
        row.scalars,
        row.loss,
        row.bound,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until `condition` holds; fail where the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def steps_taken(run: Path) -> int:
    """Return how many rows the metrics file has."""
    path = run / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def end(process: subprocess.Popen[str], signal_number: signal.Signals) -> None:
    """Send a signal to a process we started and wait for its end."""
    process.send_signal(signal_number)
    process.communicate(timeout=120)


# Tests cannot import from a conftest, so what they share are fixtures.
@pytest.fixture(name="line_of")
def _line_of() -> Callable[[RunDirectory], Line]:
    return line_of


@pytest.fixture(name="facts")
def _facts() -> Callable[[Row], tuple[object, ...]]:
    return facts


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., None]:
    return wait_for


@pytest.fixture(name="steps_taken")
def _steps_taken() -> Callable[[Path], int]:
    return steps_taken


@pytest.fixture(name="end")
def _end() -> Callable[..., None]:
    return end


@pytest.fixture(scope="session")
def small() -> str:
    """Return the small experiment's text."""
    return CONFIG


@pytest.fixture(scope="session")
def anh_in() -> Callable[[Path], Anh]:
    """Return the command line bound to a folder."""
    return Anh
