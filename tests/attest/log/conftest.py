"""A small log and a lab that writes to it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

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
def log(run_directory: Path, lab: ModuleType) -> Iterator[LocalLog]:
    """Return an empty log at `log` in the run directory."""
    directory = run_directory / "log"
    with LocalLog.create(directory, lab.key("log"), lab.key("witness"), ORIGIN) as created:
        yield created
