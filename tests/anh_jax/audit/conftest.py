"""Runs to audit: an honest one, and one for each thing a trainer may do wrong."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax import stated_class
from anh_jax.audit.auditor import Auditor
from anh_jax.audit.bounded import BoundedJudge, Opened
from anh_jax.audit.drift import DriftAccumulator
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.unmoved import Unmoved
from anh_jax.bounds.step_check import StepCheck
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.workbench import MeshSizes

# The step that is opened, and the mesh that it is judged on.
_STEP = 10
_TWO = MeshSizes(data=2)
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

    def audit(
        run: Any, *steps: int, transcript: Any = None, mesh: Any = None, source: Any = None
    ) -> Any:
        told = transcript or trainers.transcript(run)
        with workshop.auditing(), Auditor(run, told, mesh=mesh, source=source) as auditor:
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


@pytest.fixture(scope="module")
def opened(honest, trainers, workshop) -> Opened:
    """Return step 10 of the honest run, opened."""
    bench = workshop.bench(None, MeshSizes(), microbatch=None)
    executor, state = bench.executor, bench.executor.initial_state(3)
    for step in range(1, _STEP + 1):
        before = kept_copy(state)
        outputs = executor.gradient(state, bench.batch(step).pieces)
        state = executor.update(state, outputs, executor.scalars(outputs), step)
    return Opened(before, outputs, state, exact=False)


@pytest.fixture(scope="module")
def row(honest, trainers):
    return trainers.transcript(honest).line.rows[_STEP - 1].row


@pytest.fixture(scope="module")
def judge_by(honest, trainers, workshop, opened, row):
    """Return a function that judges step 10 on two devices, as opened, by estimated spreads."""
    first = workshop.bench(None, MeshSizes(), microbatch=None).executor.initial_state(3)
    unmoved = Unmoved(workshop.materials, first)
    bench = workshop.bench(None, _TWO, microbatch=None)
    materials = workshop.materials

    def judged(
        changed: Opened,
        row_changes: dict | None = None,
        *,
        spreads: Any = None,
        numerics: dict | None = None,
    ) -> StepResult:
        seen = dataclasses.replace(row, **(row_changes or {}))
        contract = materials.contract
        rules = dataclasses.replace(contract.numerics, **(numerics or {}))
        bench.materials = dataclasses.replace(
            materials, contract=dataclasses.replace(contract, numerics=rules)
        )
        spreads = spreads or workshop.spreads(
            materials.programs.stored["gradient"], contract.numerics.rules
        )
        judge = BoundedJudge(
            StepCheck(bench, spreads), unmoved, alg="blake3", seed=7, walk=PairwiseCosine()
        )
        return judge.judge(changed, seen, StepResult(_STEP, "unattestable", ""), DriftAccumulator())

    return judged


@pytest.fixture(scope="module")
def judge(judge_by):
    return judge_by


@pytest.fixture(scope="module")
def follow(workshop, opened, row):
    """Return a function that opens step 10 as an attacker would: honest but for its gradient."""
    executor = workshop.bench(None, MeshSizes(), microbatch=None).executor

    def followed(change) -> tuple[Opened, dict]:
        leaves = leaves_of(opened.outputs["gradient"])
        leaves[path] = jnp.asarray(change(np.array(leaves[path := ("layers", "0", "kernel")])))
        outputs = {**opened.outputs, "gradient": from_leaves(leaves)}
        scalars = executor.scalars(outputs)
        after = executor.update(kept_copy(opened.before), outputs, scalars, _STEP)
        norm = float(np.asarray(scalars["globalNorm"])).hex()
        numbers = {"scalars": dataclasses.replace(row.scalars, global_norm=norm)}
        return Opened(opened.before, outputs, after, exact=False), numbers

    return followed
