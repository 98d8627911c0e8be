"""The Ray Train v2 trainer of a run: how its worker group is placed, watched and replaced.

Importing this module imports Ray: do it inside a function, after the environment is set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.jax import JaxTrainer

from launch.attempt_files import AttemptFiles
from launch.errors import CommandError
from launch.phases import PhaseLog

# Actors that serve no purpose on a cluster that ends with the run and has no datasets; each is a
# process whose start (importing Ray Train and pandas) would delay the first step.
_NEEDLESS = frozenset({"DatasetsCallback", "PlacementGroupCleanerCallback"})


class WorkerFailed(CommandError):
    """Report a worker whose program raised: trying again would only raise again."""


class RestartPolicy(UserCallback):
    """Tells a worker that died, which is worth a restart, from a program that is wrong.

    Ray would start a group whose program raises anew as often as one whose worker died. It runs
    in the controller; what it raises ends the run.
    """

    def __init__(self, attempts_folder: str) -> None:
        self._attempts_folder = attempts_folder

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Note what happened, and raise where a restart would not help."""
        files = AttemptFiles(Path(self._attempts_folder))
        generation = files.living()
        lost = sorted(rank for rank, error in worker_exceptions.items() if has_died(error))
        if generation is not None:
            what = f"workers lost: {lost}" if lost else f"workers failed: {list(worker_exceptions)}"
            PhaseLog(files, generation.name, "group").add(what, 0.0)
        error = final_error(worker_exceptions)
        if error is not None:
            raise error


def final_error(worker_exceptions: dict[int, Exception]) -> Exception | None:
    """Return the error that ends the run, or None where the group should be restarted.

    A restart is worth it when a process died, or when JAX raised: then a peer most likely died
    and Ray has not noticed yet. Our own one-line errors and a program's other exceptions would
    come again.
    """
    if any(has_died(error) for error in worker_exceptions.values()):
        return None
    for error in worker_exceptions.values():
        if isinstance(getattr(error, "exit_code", None), int):
            return error
    for rank, error in sorted(worker_exceptions.items()):
        if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
            lines = str(error).strip().splitlines() or [""]
            failed = WorkerFailed(f"worker {rank}: {type(error).__name__}: {lines[0]}")
            for note in getattr(error, "__notes__", ()):
                failed.add_note(note)
            return failed
    return None


def has_died(error: Exception) -> bool:
    """Tell whether `error` says that a worker's process is gone."""
    if isinstance(error, WorkerHealthCheckFailedError):
        error = error.health_check_failure
    return isinstance(error, RayActorError)


class FixedPolicy(FixedScalingPolicy):
    """Asks for the same workers every time, and nobody to add hosts for them.

    Ray's own keeps an actor per cluster to talk to the autoscaler; a cluster of one host has none.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Register nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Request nothing."""

    def _cancel_resource_request(self) -> None:
        """Cancel nothing."""


class OneHostTrainer(JaxTrainer):
    """Ray's trainer without the actors that only a shared or growing cluster needs."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [entry for entry in callbacks if type(entry).__name__ not in _NEEDLESS]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        settings["scaling_policy"] = FixedPolicy(self.scaling_config)
        return super()._initialize_and_run_controller(**settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the workers go: how many, and what each reserves ("CPU", "GPU" or "TPU" -> count).

    `topology` and `accelerator_type` name the slice that TPU workers fill.
    """

    workers: int
    resources: dict[str, float]
    topology: str | None = None
    accelerator_type: str | None = None

    def scaling(self) -> ScalingConfig:
        """Return Ray's form of it."""
        return ScalingConfig(
            num_workers=self.workers,
            use_gpu="GPU" in self.resources,
            use_tpu="TPU" in self.resources,
            resources_per_worker=dict(self.resources),
            topology=self.topology,
            accelerator_type=self.accelerator_type,
        )


def run_config(run_directory: Path, *, environment: dict[str, str], max_failures: int) -> RunConfig:
    """Return how Ray keeps and restarts a run; `max_failures` bounds the restarts.

    Nothing is uploaded: the workers' runtime environment holds variables only, so they run the
    installed packages, and the run directory stays where it is.
    """
    attempts = run_directory / "attempts"
    return RunConfig(
        name=run_directory.name,
        storage_path=str(attempts / "ray"),
        failure_config=FailureConfig(
            max_failures=max_failures, controller_failure_limit=max_failures
        ),
        callbacks=[RestartPolicy(str(attempts))],
        worker_runtime_env={"env_vars": environment},
    )


def make_trainer(
    worker: Callable[[Any], None],
    settings: dict[str, Any],
    *,
    backend: Any,
    placement: Placement,
    run: RunConfig,
    cluster: Literal["own", "shared"],
) -> JaxTrainer:
    """Return the trainer of a group whose `backend` (a Ray BackendConfig) forms the mesh.

    On a shared cluster it is Ray's own, with all its helpers.
    """
    kind = OneHostTrainer if cluster == "own" else JaxTrainer
    return kind(
        worker,
        train_loop_config=settings,
        jax_config=backend,
        scaling_config=placement.scaling(),
        run_config=run,
    )
