"""A Ray cluster of this host for one run, or the one that RAY_ADDRESS names.

A cluster that is started here listens on loopback only, asks for a token that nobody else has,
lives in a folder of its own and ends with the run; it neither finds nor disturbs other clusters of
the host. Ray reads much of its environment when it is imported, so the environment is set first.
"""

import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from launch import bytecode
from launch.compile_cache import cache_folder
from launch.errors import CommandError, debugging

OBJECT_STORE_BYTES = 128 << 20
_log = logging.getLogger(__name__)
# A Unix socket's path has at most 107 bytes; Ray's own part of it, with the session's name, takes
# up to 64.
_LONGEST_FOLDER = 41
# Ray opens its own folder, with the sockets in it, to every user of the host; ours around it is
# closed to them.
_RAY_FOLDER = "r"
_ANY_CLUSTER = {
    # `uv run` would make Ray pack the project folder, runs/ with it, and build the workers an
    # environment of their own from it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # How often the controller looks at the workers, which bounds how late it sees one die.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Workers keep the directory they were started in; run directories are absolute anyway.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_OWN_CLUSTER = {
    "RAY_AUTH_MODE": "token",
    # The name is historical: off means that the node's address is loopback, on any system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # No dashboard shows these and no cloud takes this host away; each would cost a process.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
# `anh status` reads the state that Ray Train keeps where it is told to.
_SHARED_CLUSTER = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
_METRIC_PORTS = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")


class ClusterError(CommandError):
    """Report a Ray cluster that cannot be started or reached."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster this process is connected to; `folder` is None for one that is not ours."""

    address: str
    folder: Path | None
    seconds: float
    resources: Mapping[str, float]

    @property
    def logs(self) -> str:
        """Return where the workers' output lies."""
        if self.folder is None:
            return f"the logs of the Ray cluster at {self.address}"
        return str(self.folder / _RAY_FOLDER / "session_latest" / "logs")


class Environment:
    """Sets variables of this process while entered, and puts back what was there."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        """Set the variables."""
        self._before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put back what was there."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def open_cluster(*, workers: int, gpus: int | None = 0) -> Generator[RayCluster]:
    """Connect to the cluster that RAY_ADDRESS names, else start one of this host for `workers`.

    `gpus` is how many a cluster of this host offers, None for all of them. On leaving, a cluster
    that was started here is ended and its folder removed, unless the run failed: then its logs
    stay. Raises ClusterError.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    bytecode.keep_here()
    opened = _connect(address) if address else _start(workers=workers, gpus=gpus)
    with opened as cluster, _ray_notes():
        yield cluster


@contextlib.contextmanager
def _ray_notes() -> Generator[None]:
    # Ray prints a paragraph for every worker that dies on this process's standard output, which
    # belongs to the command's own (perhaps JSON) answer; a phase says the same in four words.
    from ray._private import worker

    before = worker.print_to_stdstream
    if not debugging():
        worker.print_to_stdstream = lambda data, ignore_prefix: _log.debug("ray: %s", data)
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextlib.contextmanager
def _connect(address: str) -> Generator[RayCluster]:
    with Environment(_ANY_CLUSTER | _SHARED_CLUSTER):
        begun = time.monotonic()
        import ray

        _require_settings()
        try:
            ray.init(address=address, log_to_driver=debugging(), logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"RAY_ADDRESS={address}: {_first_line(error)}; check the address and its token "
                "(RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH), or unset it to use this host"
            ) from error
        try:
            seconds = time.monotonic() - begun
            yield RayCluster(address, None, seconds, ray.cluster_resources())
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _start(*, workers: int, gpus: int | None) -> Generator[RayCluster]:
    folder = _own_folder()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    variables = _ANY_CLUSTER | _OWN_CLUSTER | bytecode.variables_for_children()
    variables |= {
        "RAY_AUTH_TOKEN_PATH": str(token),
        # Ray starts as many processes at once as there are CPUs in its books; the workers, the
        # controller and its barrier should not have to queue for that.
        "RAY_worker_maximum_startup_concurrency": str(workers + 2),
    }
    variables |= dict(zip(_METRIC_PORTS, map(str, _free_ports(len(_METRIC_PORTS))), strict=True))
    with Environment(variables):
        begun = time.monotonic()
        import ray

        _require_settings()
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=debugging(),
                logging_level=logging.WARNING,
                _temp_dir=str(folder / _RAY_FOLDER),
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            ray.shutdown()
            raise ClusterError(
                f"Ray does not start on this host: {_first_line(error)}; its logs are in {folder}; "
                "'anh doctor' looks for the cause, --runner local does without Ray"
            ) from error
        try:
            seconds = time.monotonic() - begun
            address = ray.get_runtime_context().gcs_address
            yield RayCluster(address, folder, seconds, ray.cluster_resources())
        except Exception:
            ray.shutdown()
            raise
        except BaseException:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def worker_environment(platform: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every worker has before it imports JAX.

    Those of this process that JAX, XLA and the device libraries read, a compile cache, then the
    platform ("cpu", "gpu" or "tpu") and `extra`, which win.
    """
    kept = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "ANH_")
    variables = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    variables.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1"))
    variables["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(platform, platform)
    return variables | dict(extra)


def _require_settings() -> None:
    from ray._private import ray_constants

    if ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV:
        raise ClusterError(
            "ray was imported before its settings were made: import it later, or export "
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0"
        )


def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="anh-"))
    if len(str(folder)) > _LONGEST_FOLDER:
        folder.rmdir()
        raise ClusterError(
            f"{folder.parent}: too long a path for Ray's sockets (at most "
            f"{_LONGEST_FOLDER - len(folder.name) - 1} characters); set TMPDIR to a shorter one"
        )
    return folder


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
