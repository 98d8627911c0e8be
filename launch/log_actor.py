"""Serves a log from a named Ray actor, so that a cluster needs nothing else to have one.

The actor is detached and started again where it died. That there is one of it guarantees nothing:
what an index is worth comes from the store, the lock beside it and the exchange of the signed head,
as for any other server of the log. Trainers reach it by its URL like any served log.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from launch.errors import CommandError
from launch.http_server import Place
from launch.log_serving import Pace, serve_log
from launch.ray_cluster import open_cluster

_NAMESPACE = "anh"
_START_SECONDS = 120.0
# As `anh log serve` has it.
_PACE = Pace(0.5, key_rate=2000, address_rate=10_000)


class LogActor:
    """Serve the log in a folder of the actor's host, until the process ends.

    Raises:
        CommandError: if the server does not start, or another one serves the log.
    """

    def __init__(self, folder: str, pace: Pace, port: int) -> None:
        import ray

        self._url = ""
        self._error: Exception | None = None
        self._begun = threading.Event()
        place = Place(ray.util.get_node_ip_address(), port)
        self._thread = threading.Thread(target=self._serve, args=(Path(folder), place, pace))
        self._thread.daemon = True
        self._thread.start()
        if not self._begun.wait(_START_SECONDS) or self._error is not None:
            raise CommandError(f"the log in {folder} is not served: {self._error or 'too slow'}")

    def url(self) -> str:
        """Return where the log is served."""
        return self._url

    def process(self) -> int:
        """Return the id of the actor's process on its host."""
        return os.getpid()

    def _serve(self, folder: Path, place: Place, pace: Pace) -> None:
        try:
            serve_log(folder, place, pace, self._began)
        except Exception as error:  # whoever waits for the start must hear of it
            self._error = error
        if not self._begun.is_set():
            self._begun.set()
            return
        # An actor that does not serve any more is of no use: Ray starts it again.
        os._exit(1)

    def _began(self, url: str, vkey: str) -> None:
        self._url = url
        self._begun.set()


def serve_in_actor(folder: Path, name: str, pace: Pace, port: int) -> str:
    """Serve a log from the actor of this name, started if there is none; return its URL.

    The cluster must be connected to, and every host that may run the actor must see the folder.

    Raises:
        CommandError: if it does not start.
    """
    import ray
    from ray.exceptions import RayActorError

    made: Any = ray.remote(LogActor)
    actor = made.options(
        name=name,
        namespace=_NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        num_cpus=1,
    ).remote(str(folder.absolute()), pace, port)
    try:
        return ray.get(actor.url.remote())
    except RayActorError as error:
        # The last line of what the actor's constructor raised says it.
        words = str(error).strip().rpartition("\n")[2]
        raise CommandError(f"log actor {name}: {words}") from None


def serve_in_cluster(folder: Path, name: str, port: int) -> str:
    """Serve a log from an actor of the cluster that RAY_ADDRESS names; return its URL.

    Raises:
        CommandError: if there is no such cluster, or the actor does not start.
    """
    if not os.environ.get("RAY_ADDRESS"):
        raise CommandError(
            "RAY_ADDRESS names no cluster, and one of this command's own would end with it; "
            "'anh log serve' needs none"
        )
    with open_cluster(workers=0):
        return serve_in_actor(folder, name, _PACE, port)


def log_actor(name: str) -> Any:
    """Return the handle of a running log actor.

    Raises:
        CommandError: if there is none of this name.
    """
    import ray

    try:
        return ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        raise CommandError(f"no log actor {name!r} in this cluster; start it first") from None
