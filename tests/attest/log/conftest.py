"""A small log and a lab that writes to it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from attest.log.sequencer import LocalLog

_LAB = Path(__file__).resolve().parent / "lab.py"
ORIGIN = "log.example/runs"


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """Return the module of `lab.py`: tests are no package, so it is loaded by file."""
    name = "tests_attest_log_lab"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _LAB)
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
