"""What the tests of the runners share: requests, run directories, and one cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from anh_jax.training.seams import AttemptGrant, AttemptRequest

# Ray reads these when it is imported, which any test module of this folder may do first.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")

HERE = Path(__file__).resolve().parent


def make_request(rank: int, processes: int = 2, **changes: object) -> AttemptRequest:
    """Return a request as a worker would make it."""
    fields: dict[str, object] = {
        "rank": rank,
        "public_key_hex": f"{rank:064x}",
        "resumed_record_hex": None,
        "step": 0,
        "mesh": {"data": processes, "fsdp": 1, "tensor": 1},
        "processes": processes,
        "environment": {},
        "reason": "start",
    }
    return AttemptRequest(**(fields | changes))


class Notary:
    """Grants attempts 1, 2, 3, ... and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[AttemptRequest]] = []

    def __call__(self, requests: Sequence[AttemptRequest]) -> AttemptGrant:
        self.asked.append(list(requests))
        number = len(self.asked)
        return AttemptGrant(number=number, record=f"{number:064x}")


@pytest.fixture
def notary() -> Notary:
    return Notary()


@pytest.fixture(scope="session")
def new_notary() -> type[Notary]:
    return Notary


@pytest.fixture
def request_of() -> Callable[..., AttemptRequest]:
    return make_request


def make_run(root: Path) -> Path:
    """Make the folders of a run directory that the stand-in worker uses."""
    for name in ("steps", "checkpoints", "attempts"):
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture(scope="session")
def new_run() -> Callable[[Path], Path]:
    return make_run


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    """One cluster of this host for all tests that start workers."""
    from launch.ray_cluster import open_cluster

    with open_cluster(workers=2) as opened:
        yield opened
