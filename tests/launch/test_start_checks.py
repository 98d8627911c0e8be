"""What cannot run is refused before `anh train` writes anything, or leaves nothing written."""

import re
from pathlib import Path

import pytest

from anh_jax.errors import AnhError, ConfigError
from anh_jax.experiment import experiment_yaml, load_experiment
from anh_jax.run_directory import RunDirectory
from launch import training
from launch.cli import run
from launch.start_checks import check_start

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "configs/digits.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([str(DIGITS), "mesh.data=64"], "needs 64 devices, .* or run on 64 .*--workers 64"),
        ([str(REPOSITORY / "examples/own_loop.yaml")], "plan.kind: native is for a loop of your"),
    ],
)
def test_a_refused_run_leaves_no_directory(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs" / "one"
    assert run(["train", *words, "--run-dir", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not root.parent.exists()


def test_a_mesh_of_another_size_than_the_cpu_workers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    experiment = load_experiment(DIGITS, ("mesh.data=4", "runner.workers=2"))
    with pytest.raises(ConfigError, match="needs 4 devices, and 2 workers .* --workers 4"):
        check_start(experiment, "ray")
    # These say that a worker has more.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    check_start(experiment, "ray")


@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "folder that was there"])
def test_a_preparation_that_fails_takes_back_what_it_made(existing: bool, tmp_path: Path) -> None:
    root = tmp_path / "runs" / "one"
    if existing:
        root.mkdir(parents=True)
    experiment = load_experiment(DIGITS, ("training.batch_size=5000",))
    with pytest.raises(AnhError, match="training.batch_size: 5000"):
        training.start(experiment, root, "local")
    assert [*tmp_path.rglob("*")] == ([root.parent, root] if existing else [])


def test_a_neighbour_and_a_written_contract_stay(tmp_path: Path) -> None:
    root, neighbour = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    with pytest.raises(AnhError, match="stop"), RunDirectory.prepared(root):
        neighbour.mkdir()
        raise AnhError("stop")
    assert not root.exists() and neighbour.is_dir()
    with pytest.raises(AnhError, match="stop"), RunDirectory.prepared(root) as made:
        (made.root / "contract.json").write_bytes(b"{}")
        raise AnhError("stop")
    assert (root / "contract.json").exists() and made.programs.is_dir()


def test_a_mesh_that_cannot_be_resumed_on_is_not_kept(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(experiment_yaml(load_experiment(DIGITS)))
    (tmp_path / "contract.json").write_bytes(b"{}")
    before = config.read_bytes()
    with pytest.raises(ConfigError, match="needs 64 devices"):
        training.resume(tmp_path, ("mesh.data=64",), None, "local")
    assert config.read_bytes() == before
