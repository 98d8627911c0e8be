"""A small log and a lab that writes to it."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.log.places import Places
from attest.log.sequencer import LocalLog

_HERE = Path(__file__).resolve().parent
ORIGIN = "log.example/runs"


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """Return the module of `lab.py`."""
    return _beside("lab")


@pytest.fixture(scope="session")
def hosts() -> ModuleType:
    """Return the module of `hosts.py`."""
    return _beside("hosts")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """Return a running PostgreSQL server (`database.Server`), or skip."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: extra `postgres`")
    database = _beside("database")
    if database.find("initdb") is None:
        pytest.skip("no PostgreSQL server here: install the package `postgresql`")
    server = database.Server()
    yield server
    server.close()


def _beside(stem: str) -> ModuleType:
    """Return a module beside this one: tests are no package, so it is loaded by file."""
    name = f"tests_attest_log_{stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _HERE / f"{stem}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def run_directory(tmp_path: Path, lab: ModuleType) -> Path:
    """Return a run directory with the keys of the log, its witness and the contract's author."""
    (tmp_path / "keys").mkdir()
    for name, seed in (("log", "log"), ("witness", "witness"), ("author", "owner")):
        lab.key(seed).save(tmp_path / "keys" / name)
    return tmp_path


@pytest.fixture
def places(request: pytest.FixtureRequest) -> Places:
    """Return where the parts of `log` lie: here, or by an indirect parameter in `postgres`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return Places()
    return Places(store=request.getfixturevalue("postgres").schema())


@pytest.fixture
def log(run_directory: Path, lab: ModuleType, places: Places) -> Iterator[LocalLog]:
    """Return an empty log at `log` in the run directory."""
    keys = lab.key("log"), lab.key("witness")
    with LocalLog.create(run_directory / "log", *keys, ORIGIN, places=places) as created:
        yield created


@pytest.fixture(scope="session")
def served() -> ModuleType:
    """Return the module of `served.py`."""
    return _beside("served")


@pytest.fixture
def serve(log: LocalLog, run_directory: Path, served: ModuleType) -> Iterator[Callable[..., Any]]:
    """Return what serves the fixture's log, with the options of a House, until the test ends."""
    with ExitStack() as stack:

        def start(**options: Any) -> Any:
            return stack.enter_context(served.serving(log, run_directory / "log", **options))

        yield start


@pytest.fixture
def begun(serve: Callable[..., Any], lab: ModuleType) -> tuple[Any, Any]:
    """Return a served log, and the run in it, whose first three steps are logged."""
    return _begin(serve(), lab)


@pytest.fixture(scope="module")
def quiet(
    tmp_path_factory: pytest.TempPathFactory, lab: ModuleType, served: ModuleType
) -> Iterator[Any]:
    """Return such a log for questions that change nothing."""
    directory = tmp_path_factory.mktemp("quiet") / "log"
    with (
        LocalLog.create(directory, lab.key("log"), lab.key("witness"), ORIGIN) as log,
        served.serving(log, directory) as one,
    ):
        yield _begin(one, lab)[0]


def _begin(served: Any, lab: ModuleType) -> tuple[Any, Any]:
    run = lab.Lab()
    reply = served.submit(*run.opening(), *run.train(1, 1, 3), keys=(run.author,), query="?wait=20")
    assert reply.status == 200
    assert reply.json["indices"] == [0, 1, 2, 3, 4, 5]
    return served, run
