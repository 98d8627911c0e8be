"""Runs a worker group through Ray Train, from its first process to its last.

The driver's main thread holds the run key: it signs attempts, prints phases and hears Ctrl-C,
while Ray Train's controller, started from a second thread, watches the workers and replaces the
whole group when one of them dies. Training then goes on from the newest training checkpoint.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anh_jax.run_directory import RunDirectory
from launch.attempt_broker import AttemptBoard, Grant
from launch.attempt_files import AttemptFiles
from launch.errors import CommandError
from launch.interrupts import Interrupts
from launch.phases import Phase, PhaseReader
from launch.ray_cluster import RayCluster, open_cluster, worker_environment
from launch.run_outcome import DEFAULT_ENTRY, RunOutcome

if TYPE_CHECKING:
    from ray.train.v2.jax import JaxTrainer

Platform = Literal["cpu", "gpu", "tpu"]
POLL_SECONDS = 0.1
_UNITS: dict[Platform, str] = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
_NAMED: dict[str, Platform] = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "tpu": "tpu"}


class RunLost(CommandError):
    """Report a run whose workers could not be kept alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """What may differ between runs.

    `entry` is "module:function"; `environment` is added to every worker's. Without `platform` it is
    the one that JAX_PLATFORMS names first, else the cluster's best. `devices` is the number of GPUs
    or TPU chips a worker gets; `topology` and `accelerator_type` name a TPU slice. `max_failures`
    bounds how often the group is replaced.
    """

    entry: str = DEFAULT_ENTRY
    platform: Platform | None = None
    devices: int = 1
    topology: str | None = None
    accelerator_type: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    max_failures: int = 8


def run_with_ray(
    run_directory: Path,
    workers: int,
    *,
    grant: Grant,
    on_phase: Callable[[Phase], None],
    on_poll: Callable[[], None],
    options: RayOptions | None = None,
    cluster: RayCluster | None = None,
) -> RunOutcome:
    """Run `workers` workers that form one mesh to their end.

    `grant` signs an attempt for the requests of all ranks; it, `on_phase` and `on_poll` (called
    about ten times a second) run in the calling thread, which has to be the main one for Ctrl-C to
    be heard. Without `cluster`, one is opened and closed. The first Ctrl-C makes the workers write
    a training checkpoint and return; the second raises KeyboardInterrupt at once. Raises what a
    worker's own one-line error was, RunLost after too many lost workers, or ClusterError.
    """
    chosen = options or RayOptions()
    gpus = 0 if (chosen.platform or _named_platform()) == "cpu" else None
    with Interrupts() as interrupts:
        ours = cluster is None
        opened = open_cluster(workers=workers, gpus=gpus) if ours else nullcontext(cluster)
        with opened as connected:
            if ours:
                on_phase(Phase("ray started", connected.seconds))
            on_phase(Phase(f"cluster resources: {_resources_text(connected)}", 0.0))
            driver = _Driver(run_directory.absolute(), workers, chosen, connected)
            return driver.run(interrupts, grant, on_phase, on_poll)


class _Driver:
    def __init__(
        self, run_directory: Path, workers: int, options: RayOptions, cluster: RayCluster
    ) -> None:
        self._run = RunDirectory(run_directory)
        self._files = AttemptFiles(run_directory / "attempts")
        self._workers = workers
        self._options = options
        self._cluster = cluster
        self._platform: Platform = options.platform or choose_platform(cluster.resources)
        self._unit = _UNITS[self._platform]
        self._count = 1 if self._platform == "cpu" else options.devices

    def run(
        self,
        interrupts: Interrupts,
        grant: Grant,
        on_phase: Callable[[Phase], None],
        on_poll: Callable[[], None],
    ) -> RunOutcome:
        if self._cluster.folder is not None:
            self._require_room()
        board = AttemptBoard.open(self._files, grant)
        self._run.stop_request.unlink(missing_ok=True)
        phases = PhaseReader(self._files)
        failure: Exception | None = None
        fit = _Fit(self._trainer())
        fit.start()
        while fit.running:
            if failure is None:
                try:
                    board.serve()
                except Exception as error:
                    failure = error  # the workers have been told; they end the run
            for phase in phases.new():
                on_phase(phase)
            on_poll()
            if interrupts.asked and not self._run.stop_request.exists():
                self._run.stop_request.touch()
                on_phase(Phase("asked to stop: a training checkpoint, then the end", 0.0))
            fit.wait(POLL_SECONDS)
        for phase in phases.new():
            on_phase(phase)
        self._run.stop_request.unlink(missing_ok=True)
        if failure is not None:
            raise failure
        if fit.error is not None:
            raise self._translated(fit.error) from fit.error
        return self._outcome(board)

    def _trainer(self) -> "JaxTrainer":
        # Ray reads its settings when it is imported, and the cluster has made them by now.
        from launch import ray_backend, ray_trainer, ray_worker

        options = self._options
        placement = ray_trainer.Placement(
            workers=self._workers,
            resources={self._unit: float(self._count)},
            topology=options.topology,
            accelerator_type=options.accelerator_type,
        )
        return ray_trainer.make_trainer(
            ray_worker.run_worker,
            ray_worker.settings_for(self._run.root, options.entry),
            backend=ray_backend.MeshConfig(
                attempts_folder=str(self._files.folder),
                platform=self._platform,
                started_at=time.time(),
            ),
            placement=placement,
            run=ray_trainer.run_config(
                self._run.root,
                environment=worker_environment(self._platform, options.environment),
                max_failures=options.max_failures,
            ),
            cluster="own" if self._cluster.folder is not None else "shared",
        )

    def _outcome(self, board: AttemptBoard) -> RunOutcome:
        living = self._files.living()
        if living is None:
            raise RunLost(f"{self._run.root}: Ray returned without having started a worker")
        stopped = self._files.stopped(living.name).exists()
        return RunOutcome(
            ending="interrupted" if stopped else "finished",
            attempts=board.grants,
            generations=living.index + 1,
        )

    def _require_room(self) -> None:
        # Nothing will ever be added to a cluster of this host: no use in waiting for it.
        if self._cluster.resources.get(self._unit, 0) < self._workers * self._count:
            raise self._no_room()

    def _no_room(self) -> RunLost:
        return RunLost(
            f"no room for {self._workers} workers with {self._count} {self._unit} each on a "
            f"cluster with {_resources_text(self._cluster)}; ask for fewer with --workers, or set "
            "JAX_PLATFORMS=cpu to use the CPU"
        )

    def _translated(self, error: BaseException) -> BaseException:
        # A controller's error holds the one that a worker or the mesh raised; those with an exit
        # code are ours and say everything in their line.
        inner = getattr(error, "controller_failure", None)
        if isinstance(inner, Exception) and isinstance(getattr(inner, "exit_code", None), int):
            return inner
        if type(inner).__name__ == "WorkerGroupStartupTimeoutError":
            return self._no_room()
        failures: dict[int, Exception] = getattr(error, "worker_failures", {})
        if failures:
            last = "; ".join(
                f"worker {rank}: {_first_line(failure)}"
                for rank, failure in sorted(failures.items())
            )
            return RunLost(
                f"{self._run.root}: workers were lost more than {self._options.max_failures} "
                f"times, last {last}; their output is in {self._cluster.logs}; "
                f"'anh resume {self._run.root}' goes on"
            )
        return RunLost(
            f"{self._run.root}: Ray gave up: {_first_line(inner or error)}; its logs are in "
            f"{self._cluster.logs}; 'anh resume {self._run.root}' goes on"
        )


class _Fit:
    """Runs `trainer.fit` beside the main thread, which it would otherwise hold, Ctrl-C with it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._thread = threading.Thread(target=self._run, name="anh-ray-fit", daemon=True)
        self.error: BaseException | None = None

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error


def choose_platform(resources: Mapping[str, float]) -> Platform:
    """Return the platform that JAX_PLATFORMS names first, else the best that the cluster has."""
    named = _named_platform()
    if named is not None:
        return named
    if resources.get("TPU"):
        return "tpu"
    return "gpu" if resources.get("GPU") else "cpu"


def _named_platform() -> Platform | None:
    return _NAMED.get(os.environ.get("JAX_PLATFORMS", "").partition(",")[0].strip().lower())


def _resources_text(cluster: RayCluster) -> str:
    shown = ("CPU", "GPU", "TPU")
    found = [f"{cluster.resources[name]:g} {name}" for name in shown if name in cluster.resources]
    return ", ".join(found) or "nothing"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
