"""Forms one JAX mesh out of a Ray Train worker group, and refuses to train without it.

Ray's own JAX backend (2.60) does nothing unless its workers have GPUs or TPUs, so workers on CPU
would train apart in silence, and it points every GPU worker of one host at the same GPU. Here the
processes of any group are joined through jax.distributed and counted before a step is taken; on
TPU the joining itself stays with Ray's class, which knows about slices.

Importing this module imports Ray: do it inside a function, after the environment is set.
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

from launch.attempt_files import AttemptFiles
from launch.errors import CommandError
from launch.phases import PhaseLog

Platform = Literal["cpu", "gpu", "tpu"]
GENERATION_VARIABLE = "ANH_GENERATION"
HEARTBEAT_SECONDS, JOIN_SECONDS = 10, 60


class MeshError(CommandError):
    """Report worker processes that do not form the one mesh that was asked for."""


@dataclass
class MeshConfig(BackendConfig):
    """What the backend needs: the folder of attempts and the kind of device.

    `started_at` is the Unix time at which the driver asked for the workers.
    """

    attempts_folder: str = ""
    platform: Platform = "cpu"
    started_at: float = 0.0

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the class that forms the mesh."""
        return TpuMeshBackend if self.platform == "tpu" else MeshBackend

    def to_dict(self) -> dict[str, Any]:
        """Return what Ray's state listing shows."""
        return {"platform": self.platform}


class MeshBackend(Backend):
    """Joins the processes of a group through jax.distributed (CPU and GPU).

    It runs in the controller, once for every group: the first one and each that replaces a group
    of which a worker died. CUDA_VISIBLE_DEVICES stays as Ray set it for each worker.
    """

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Name the group, join its processes and count them.

        Raises MeshError where a process sees another number of processes, or two the same rank.
        A worker that dies meanwhile makes Ray try with a new group.
        """
        files = AttemptFiles(Path(backend_config.attempts_folder))
        size = len(worker_group)
        generation = files.announce(size)
        phases = PhaseLog(files, generation.name, "group")
        if generation.index == 0:
            waited = max(0.0, time.time() - backend_config.started_at)
            phases.add(f"workers placed: {size}", waited)
        begun = time.monotonic()
        try:
            self.join(worker_group)
            views = ray.get(_everywhere(worker_group, enter_generation, generation.name))
        except (RayActorError, RayTaskError) as error:
            raise WorkerGroupStartupFailedError(f"the workers did not join: {error}") from error
        _check_views(views)
        what = "mesh formed" if generation.index == 0 else "mesh formed again"
        devices = sum(view.local_devices for view in views)
        phases.add(
            f"{what}: {size} processes, {devices} devices ({views[0].kind})",
            time.monotonic() - begun,
        )

    def join(self, worker_group: Any) -> None:
        """Give every process the address of rank 0's coordinator and wait until all are joined."""
        address = worker_group.execute_single(0, coordinator_address)
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(rank, join_mesh, address, size, rank)
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Need nothing: ranks that finish leave together, those of a broken group are ended.

        Asking a group of which a worker died to leave politely would only wait for the dead one.
        """


class TpuMeshBackend(MeshBackend):
    """Lets Ray's own class join TPU hosts: it sets what libtpu needs across slices."""

    def join(self, worker_group: Any) -> None:
        """Hand over to Ray's class."""
        from ray.train.v2.jax import JaxConfig

        stock = JaxConfig(use_tpu=True)
        stock.backend_cls().on_start(worker_group, stock)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Hand over to Ray's class."""
        from ray.train.v2.jax import JaxConfig

        stock = JaxConfig(use_tpu=True)
        stock.backend_cls().on_shutdown(worker_group, stock)


@dataclass(frozen=True, slots=True)
class View:
    """What one worker process sees of the mesh."""

    rank: int
    processes: int
    local_devices: int
    kind: str


@dataclass(frozen=True, slots=True)
class Membership:
    """One worker's place: its group's name, its rank in the mesh and the size of the mesh."""

    generation: str
    rank: int
    processes: int


def coordinator_address() -> str:
    """Return a free address of this host; runs in rank 0, where the coordinator will listen."""
    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def join_mesh(address: str, processes: int, rank: int) -> None:
    """Join this process to the mesh; runs in every worker before JAX has looked for devices."""
    import jax

    quiet_libraries()
    # JAX would listen on every interface; a cluster of this host alone is nobody else's business.
    loopback = address.startswith(("127.", "[::1]"))
    jax.distributed.initialize(
        address,
        processes,
        rank,
        cluster_detection_method="deactivate",
        initialization_timeout=JOIN_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        coordinator_bind_address=address if loopback else None,
    )


def enter_generation(name: str) -> View:
    """Note the generation in this process and look at the mesh; all ranks must call it at once."""
    import jax

    os.environ[GENERATION_VARIABLE] = name
    return View(
        rank=jax.process_index(),
        processes=jax.process_count(),
        local_devices=jax.local_device_count(),
        kind=jax.local_devices()[0].device_kind,
    )


def require_one_mesh(*, worker: int, processes: int) -> Membership:
    """Return this process's place in the mesh of its group.

    The last check before a worker trains, whatever formed the group or failed to: raises MeshError
    unless JAX counts as many processes as Ray has workers and the group has a name.
    """
    import jax

    view = View(jax.process_index(), jax.process_count(), jax.local_device_count(), "")
    _check_view(worker, processes, view)
    generation = os.environ.get(GENERATION_VARIABLE)
    if not generation:
        raise MeshError(
            f"worker {worker}: nothing named its group; start the workers with launch.ray_backend"
        )
    return Membership(generation=generation, rank=view.rank, processes=processes)


def quiet_libraries() -> None:
    """Keep the libraries' notes of every rank out of the logs; warnings stay."""
    for name in ("absl", "orbax", "jax"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _everywhere(worker_group: Any, call: Any, *arguments: Any) -> list[Any]:
    return [
        worker_group.execute_single_async(rank, call, *arguments)
        for rank in range(len(worker_group))
    ]


def _check_views(views: list[View]) -> None:
    for worker, view in enumerate(views):
        _check_view(worker, len(views), view)
    # TPU hosts are numbered by their slice, not by Ray; any order will do, but each number once.
    ranks = [view.rank for view in views]
    if sorted(ranks) != list(range(len(views))):
        raise MeshError(
            f"{len(views)} workers are the processes {ranks} to JAX: two have one number and "
            "would train apart; check that jax.distributed is not started elsewhere"
        )


def _check_view(worker: int, processes: int, view: View) -> None:
    if view.processes != processes:
        raise MeshError(
            f"worker {worker} of {processes} is process {view.rank} of {view.processes} to JAX: "
            "the workers form no single mesh and would train apart; check that jax.distributed "
            "is not started elsewhere and that JAX_PLATFORMS is right"
        )
