"""Runs to audit: an honest one, and one for each thing a trainer may do wrong."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from anh_jax import stated_class
from anh_jax.audit.auditor import Auditor

_TRAINERS = Path(__file__).resolve().parent / "trainers.py"


@pytest.fixture(scope="session")
def trainers() -> ModuleType:
    """Return the module of `trainers.py`: tests are no package, so it is loaded by file."""
    name = "tests_audit_trainers"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _TRAINERS)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def workshop(trainers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the one contract of these tests, its programs compiled at their first use."""
    return trainers.Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def honest(trainers: ModuleType, workshop: Any) -> Any:
    """Return an honest run."""
    return workshop.train(workshop.new_run(), trainers.Fault())


@pytest.fixture
def audited(trainers: ModuleType, workshop: Any) -> Callable[..., Any]:
    """Return a function that audits steps of a run and gives the findings."""

    def audit(run: Any, *steps: int, transcript: Any = None, mesh: Any = None) -> Any:
        told = transcript or trainers.transcript(run)
        with workshop.auditing(), Auditor(run, told, mesh=mesh) as auditor:
            return auditor.audit(steps)

    return audit


@pytest.fixture(scope="session")
def cheat(workshop: Any) -> Callable[[Any], Any]:
    """Return a function that trains a new run with a fault."""
    return lambda fault: workshop.train(workshop.new_run(), fault)


@pytest.fixture
def other_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine be of another execution class than any trainer."""
    own = stated_class.execution_class
    monkeypatch.setattr(
        stated_class, "execution_class", lambda *a, **k: {**own(*a, **k), "threads": "77"}
    )
