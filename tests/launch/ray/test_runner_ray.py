import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launch.attempt_files import AttemptFiles
from launch.phases import Phase
from launch.ray_cluster import RayCluster
from launch.run_outcome import RunOutcome
from launch.runner_ray import RayOptions, RunLost, choose_platform, run_with_ray

# Ray Data, which Ray Train loads, reads deprecated settings of its own.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:`use_.*deprecated.*:DeprecationWarning"),
]
HERE = Path(__file__).resolve().parent
WEIGHT_BYTES = 64 << 20


@dataclass
class Driven:
    """A run of the stand-in worker as its driver sees it."""

    root: Path
    phases: list[Phase] = field(default_factory=list)
    outcome: RunOutcome | None = None

    def rows(self, attempt: int, rank: int) -> list[dict[str, int]]:
        text = (self.root / "steps" / f"{attempt}-{rank}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def facts(self, attempt: int, rank: int) -> dict[str, Any]:
        return json.loads((self.root / f"facts-{attempt}-{rank}.json").read_text())

    def names(self) -> list[str]:
        return [phase.name for phase in self.phases]

    def has_steps(self, count: int) -> bool:
        path = self.root / "steps" / "1-0.jsonl"
        return path.exists() and path.read_text().count("\n") >= count


def value_after(steps: int) -> int:
    """Compute what the stand-in holds: ranks 0 and 1 add step and 2 x step on 2 devices each."""
    value = 0
    for step in range(1, steps + 1):
        value = (value * 31 + 2 * (step + 2 * step)) % 1_000_003
    return value


def options(**wanted: Any) -> RayOptions:
    return RayOptions(
        entry="stand_in:train",
        environment={
            "PYTHONPATH": str(HERE),
            "ANH_STAND_IN": json.dumps(wanted),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
    )


def drive(
    root: Path,
    cluster: RayCluster,
    notary: Any,
    chosen: RayOptions,
    on_poll: Callable[[Driven], None] = lambda driven: None,
) -> Driven:
    driven = Driven(root)
    driven.outcome = run_with_ray(
        root,
        2,
        grant=notary,
        on_phase=driven.phases.append,
        on_poll=lambda: on_poll(driven),
        options=chosen,
        cluster=cluster,
    )
    return driven


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    cluster: RayCluster,
    new_run: Callable[[Path], Path],
    new_notary: Callable[[], Any],
) -> Driven:
    """One run that goes well, looked at by several tests."""
    root = new_run(tmp_path_factory.mktemp("project") / "runs" / "digits-1")
    (root / "weights").write_bytes(os.urandom(WEIGHT_BYTES))
    return drive(root, cluster, new_notary(), options(steps=5))


def test_two_workers_form_one_mesh_and_add_across_it(finished: Driven) -> None:
    for rank in range(2):
        assert finished.facts(1, rank)["process_count"] == 2
        assert finished.facts(1, rank)["devices"] == 4
        assert finished.rows(1, rank)[-1] == {"step": 5, "value": value_after(5)}
    assert finished.outcome is not None
    assert finished.outcome.ending == "finished"
    assert [grant.number for grant in finished.outcome.attempts] == [1]
    assert finished.outcome.generations == 1


def test_workers_run_the_driver_s_interpreter_in_the_driver_s_folder(finished: Driven) -> None:
    for rank in range(2):
        assert finished.facts(1, rank)["executable"] == sys.executable
        assert finished.facts(1, rank)["directory"] == os.getcwd()
        assert "device_count=2" in finished.facts(1, rank)["flags"]


def test_the_run_directory_is_never_uploaded(finished: Driven, cluster: RayCluster) -> None:
    for rank in range(2):
        assert set(finished.facts(1, rank)["runtime_env"]) == {"env_vars"}
    assert cluster.folder is not None
    # Sockets and sparse spill files aside, a copy would be a file of the weights' size.
    large = [
        path
        for path in cluster.folder.rglob("*")
        if path.is_file() and path.stat().st_size >= WEIGHT_BYTES // 2
    ]
    assert large == []


def test_every_phase_of_the_start_is_told_with_its_seconds(finished: Driven) -> None:
    expected = [
        "cluster resources: 2 CPU",
        "workers placed: 2",
        "mesh formed: 2 processes, 4 devices (cpu)",
        "program loaded",
        "first step",
    ]
    positions = [finished.names().index(name) for name in expected]
    assert positions == sorted(positions)
    assert all(phase.seconds >= 0 for phase in finished.phases)
    placed = next(phase for phase in finished.phases if phase.name == expected[1])
    assert placed.seconds > 0.1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_costs_only_the_steps_since_the_checkpoint(
    run_directory: Path, cluster: RayCluster, notary: Any, victim: int
) -> None:
    killed: list[int] = []

    def kill_once(driven: Driven) -> None:
        if not killed and driven.has_steps(5):
            killed.append(driven.facts(1, victim)["pid"])
            os.kill(killed[0], signal.SIGKILL)

    chosen = options(steps=12, seconds=0.15, every=3)
    driven = drive(run_directory, cluster, notary, chosen, kill_once)
    assert driven.outcome is not None
    assert driven.outcome.ending == "finished"
    assert driven.outcome.generations == 2
    first, second = notary.asked
    assert (first[0].step, first[0].reason) == (0, "start")
    assert second[0].step in (3, 6)
    assert second[0].reason == "worker lost"
    for rank in range(2):
        rows = driven.rows(2, rank)
        assert rows[0]["step"] == second[0].step + 1
        assert rows[-1] == {"step": 12, "value": value_after(12)}
        assert driven.facts(2, rank)["pid"] != driven.facts(1, rank)["pid"]
    assert any(name.startswith("workers lost") for name in driven.names())


def test_a_program_that_raises_is_not_started_again(
    run_directory: Path, cluster: RayCluster, notary: Any
) -> None:
    chosen = options(**{"raise": "at start"})
    with pytest.raises(Exception, match="ValueError: the model is wrong") as caught:
        drive(run_directory, cluster, notary, chosen)
    assert type(caught.value).__name__ == "WorkerFailed"
    assert getattr(caught.value, "exit_code", None) == 2
    assert "\n" not in str(caught.value)
    assert 'raise ValueError("the model is wrong' in "".join(caught.value.__notes__)
    generation = AttemptFiles(run_directory / "attempts").living()
    assert generation is not None
    assert generation.index == 0


def test_a_refused_attempt_ends_the_run_with_the_driver_s_own_error(
    run_directory: Path, cluster: RayCluster, notary: Any
) -> None:
    with pytest.raises(Exception, match="the same public key") as caught:
        drive(run_directory, cluster, notary, options(keys="same"))
    assert type(caught.value).__name__ == "BrokerError"
    assert not notary.asked
    assert list((run_directory / "steps").iterdir()) == []


def test_ctrl_c_stops_all_ranks_after_the_same_step_with_a_checkpoint(
    run_directory: Path, cluster: RayCluster, notary: Any
) -> None:
    pressed: list[bool] = []

    def press_once(driven: Driven) -> None:
        if not pressed and driven.has_steps(3):
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    chosen = options(steps=10_000, seconds=0.05, every=10_000)
    driven = drive(run_directory, cluster, notary, chosen, press_once)
    assert driven.outcome is not None
    assert driven.outcome.ending == "interrupted"
    last = [driven.rows(1, rank)[-1] for rank in range(2)]
    assert last[0] == last[1]
    assert (run_directory / "checkpoints" / f"{last[0]['step']}.json").exists()
    assert not (run_directory / "stop").exists()


def test_workers_for_whom_this_host_has_no_room_are_refused_at_once(
    run_directory: Path, cluster: RayCluster, notary: Any
) -> None:
    chosen = RayOptions(entry="stand_in:train", platform="gpu")
    with pytest.raises(RunLost, match=r"no room for 2 workers with 1 GPU each .* 2 CPU"):
        drive(run_directory, cluster, notary, chosen)


@pytest.mark.parametrize(
    ("named", "resources", "expected"),
    [
        ("", {"CPU": 8.0}, "cpu"),
        ("", {"CPU": 8.0, "GPU": 2.0}, "gpu"),
        ("", {"CPU": 8.0, "TPU": 4.0}, "tpu"),
        ("", {"CPU": 8.0, "GPU": 0.0}, "cpu"),
        ("cpu", {"GPU": 2.0}, "cpu"),
        ("cuda,cpu", {"CPU": 8.0}, "gpu"),
        ("tpu", {"CPU": 8.0}, "tpu"),
    ],
)
def test_the_best_platform_is_used_unless_jax_platforms_names_one(
    monkeypatch: pytest.MonkeyPatch, named: str, resources: dict[str, float], expected: str
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", named)
    assert choose_platform(resources) == expected


def test_workers_without_a_mesh_are_caught_before_step_0(
    run_directory: Path, cluster: RayCluster
) -> None:
    from ray.train.v2.jax import JaxConfig

    from launch import ray_trainer, ray_worker

    # Ray's own backend joins nobody on CPU: this is what would train two models in silence.
    trainer = ray_trainer.make_trainer(
        ray_worker.run_worker,
        ray_worker.settings_for(run_directory, "stand_in:train"),
        backend=JaxConfig(),
        placement=ray_trainer.Placement(workers=2, resources={"CPU": 1.0}),
        run=ray_trainer.run_config(
            run_directory, environment=dict(options(steps=2).environment), max_failures=0
        ),
        cluster="own",
    )
    caught: list[Any] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join(60)
    error = caught[0].controller_failure
    assert type(error).__name__ == "MeshError"
    assert "of 1 to JAX: the workers form no single mesh" in str(error)
    assert error.exit_code == 2
    assert list((run_directory / "steps").iterdir()) == []
