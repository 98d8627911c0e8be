from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.errors import AnhError
from launch.attempt_files import AttemptFiles

ray_backend: Any = pytest.importorskip("launch.ray_backend")
ray_trainer: Any = pytest.importorskip("launch.ray_trainer")


class Group:
    """A worker group whose calls run here, answered by `views`."""

    def __init__(self, views: list[Any]) -> None:
        self._views = views
        self.called: list[str] = []

    def __len__(self) -> int:
        return len(self._views)

    def execute_single(self, rank: int, call: Callable[..., Any], *rest: Any) -> Any:
        self.called.append(call.__name__)
        return "127.0.0.1:1"

    def execute_single_async(self, rank: int, call: Callable[..., Any], *rest: Any) -> Any:
        self.called.append(call.__name__)
        return self._views[rank]


def view(rank: int, processes: int) -> Any:
    return ray_backend.View(rank=rank, processes=processes, local_devices=4, kind="chip")


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend.ray, "get", lambda found: found)


def config(folder: Path, platform: str) -> Any:
    return ray_backend.MeshConfig(attempts_folder=str(folder), platform=platform)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_processes_are_joined_and_counted(tmp_path: Path, platform: str) -> None:
    chosen = config(tmp_path, platform)
    group = Group([view(0, 2), view(1, 2)])
    chosen.backend_cls().on_start(group, chosen)
    assert group.called == [
        "coordinator_address",
        *["join_mesh"] * 2,
        *["enter_generation"] * 2,
    ]
    generation = AttemptFiles(tmp_path).living()
    assert generation is not None
    assert (generation.index, generation.processes) == (0, 2)


def test_tpu_hosts_are_joined_by_ray_s_own_backend_and_counted_by_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train.v2.jax import JaxConfig

    stock: list[tuple[str, Any]] = []
    kind = JaxConfig(use_tpu=True).backend_cls
    monkeypatch.setattr(kind, "on_start", lambda self, group, given: stock.append(("on", given)))
    monkeypatch.setattr(
        kind, "on_shutdown", lambda self, group, given: stock.append(("off", given))
    )
    chosen = config(tmp_path, "tpu")
    backend = chosen.backend_cls()
    group = Group([view(0, 2), view(1, 2)])
    backend.on_start(group, chosen)
    backend.on_shutdown(group, chosen)
    assert [(name, given.use_tpu) for name, given in stock] == [("on", True), ("off", True)]
    assert group.called == ["enter_generation"] * 2
    alone = Group([view(0, 1), view(0, 1)])
    with pytest.raises(ray_backend.MeshError):
        backend.on_start(alone, chosen)


@pytest.mark.parametrize(
    "views", [[(0, 1), (0, 1)], [(0, 2), (0, 2)], [(1, 2), (2, 2)], [(0, 3), (1, 3)]]
)
def test_processes_that_form_another_mesh_are_refused(
    tmp_path: Path, views: list[tuple[int, int]]
) -> None:
    chosen = config(tmp_path, "cpu")
    group = Group([view(*seen) for seen in views])
    with pytest.raises(ray_backend.MeshError, match="would train apart"):
        chosen.backend_cls().on_start(group, chosen)


def test_hosts_that_a_tpu_slice_numbers_in_its_own_order_are_one_mesh(tmp_path: Path) -> None:
    chosen = config(tmp_path, "cpu")
    chosen.backend_cls().on_start(Group([view(1, 2), view(0, 2)]), chosen)


def test_a_worker_lost_while_joining_is_tried_again_by_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
    from ray.train.v2._internal.execution.failure_handling.default import (
        RETRYABLE_CONTROLLER_ERRORS,
    )

    def lost(found: Any) -> None:
        raise RayActorError

    monkeypatch.setattr(ray_backend.ray, "get", lost)
    chosen = config(tmp_path, "cpu")
    with pytest.raises(WorkerGroupStartupFailedError):
        chosen.backend_cls().on_start(Group([view(0, 1)]), chosen)
    assert WorkerGroupStartupFailedError in RETRYABLE_CONTROLLER_ERRORS


def died() -> Exception:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("gone", failure=RayActorError())


class JaxRuntimeError(Exception):
    """Named as JAX names what a collective raises when its peer is gone."""


@pytest.mark.parametrize(
    ("errors", "final"),
    [
        ({1: died()}, None),
        ({0: JaxRuntimeError("peer closed"), 1: died()}, None),
        ({0: JaxRuntimeError("peer closed")}, None),
        ({0: AnhError("no such dataset"), 1: died()}, None),
        ({0: AnhError("no such dataset")}, "no such dataset"),
        ({0: JaxRuntimeError("x"), 1: AnhError("no such dataset")}, "no such dataset"),
        ({0: ValueError("bad shape\nmore")}, "worker 0: ValueError: bad shape"),
        ({0: JaxRuntimeError("x"), 1: KeyError("k")}, "worker 1: KeyError: 'k'"),
    ],
)
def test_only_a_lost_worker_is_worth_a_restart(
    errors: dict[int, Exception], final: str | None
) -> None:
    found = ray_trainer.final_error(errors)
    assert (None if found is None else str(found)) == final
    if found is not None:
        assert found.exit_code == 2


# Ray Data, which Ray Train loads, reads deprecated settings of its own.
@pytest.mark.filterwarnings("ignore:`use_.*deprecated.*:DeprecationWarning")
def test_the_trainer_of_one_host_starts_no_needless_actor(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    kept = {
        cluster: {
            type(callback).__name__
            for callback in ray_trainer.make_trainer(
                lambda settings: None,
                {},
                backend=config(tmp_path, "cpu"),
                placement=ray_trainer.Placement(workers=2, resources={"CPU": 1.0}),
                run=ray_trainer.run_config(tmp_path, environment={}, max_failures=1),
                cluster=cluster,
            )._create_default_callbacks()
        }
        for cluster in ("own", "shared")
    }
    # Named in launch/ray_trainer.py: if Ray renames one, it has to be looked at again.
    assert kept["shared"] - kept["own"] == ray_trainer._NEEDLESS
    assert "BackendSetupCallback" in kept["own"]
