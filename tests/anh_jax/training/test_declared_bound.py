"""The trainer's own bound: what it is made of, how it moves between measurements."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.deviations import Spread, TensorSpread
from anh_jax.errors import ConfigError
from anh_jax.experiment import load_experiment
from anh_jax.training.bound_estimate import BoundEstimate
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.declared_bound import SAFETY, bound_seed, relative_bound
from anh_jax.training.executor import Executor
from anh_jax.training.loop import CompletedStep, StepBatch, train
from attest.numerics_class import CLASSES

F32 = CLASSES["f32"]
NORMS = st.floats(1e-30, 1e30)


def spread(**squares: float) -> Spread:
    empty = np.zeros(0)
    return Spread({("gradient", name): TensorSpread(x, (), empty) for name, x in squares.items()})


def test_the_largest_ratio_counts_with_c_and_the_safety_factor() -> None:
    found = relative_bound(
        spread(a=(3e-6) ** 2, b=(1e-6) ** 2), {("a",): 3.0, ("b",): 0.5}, F32, frozenset()
    )
    assert found == pytest.approx(SAFETY * F32.c * 2e-6)


def test_null_gradients_and_gradients_of_zero_say_nothing() -> None:
    norms = {("a",): 1.0, ("b",): 1e-9, ("dead",): 0.0}
    squares = spread(a=1e-12, b=1.0, dead=1.0)
    assert relative_bound(squares, norms, F32, frozenset(("b",))) == pytest.approx(
        SAFETY * F32.c * 1e-6
    )
    assert relative_bound(squares, {("dead",): 0.0}, F32, frozenset()) is None


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_declares_none(norm: float) -> None:
    assert BoundEstimate(1, 1e-6, 1.0).at(norm) is None
    assert relative_bound(spread(a=math.nan), {("a",): 1.0}, F32, frozenset()) is None


def test_the_bound_is_never_below_the_class_floor() -> None:
    found = relative_bound(spread(a=0.0), {("a",): 1.0}, F32, frozenset())
    assert found == SAFETY * F32.c * F32.phi * 2.0**-24


@given(relative=st.floats(1e-9, 1e-2), first=NORMS, later=NORMS)
def test_between_measurements_the_bound_only_grows_and_covers_noise_of_constant_size(
    relative: float, first: float, later: float
) -> None:
    found = BoundEstimate(1, relative, first).at(later)
    assert found is not None and found >= relative
    assert found * later >= relative * first * (1 - 1e-12)


def test_seeds_differ_by_run_and_step_and_nobody_chooses_them() -> None:
    seeds = {bound_seed(run, step) for run in ("a", "b", "a\n1") for step in (1, 2, 11)}
    assert len(seeds) == 9
    assert bound_seed("a", 1) == bound_seed("a", 1) < 2**64


def test_a_training_checkpoint_keeps_every_bit_of_the_estimate(tmp_path: Any) -> None:
    estimate = BoundEstimate(6, 1.8971966989354076e-06, 0.1)
    store = TrainingCheckpoints(tmp_path, keep=2)
    state = {"step": jnp.uint32(8)}
    shapes = {"step": jax.ShapeDtypeStruct((), jnp.uint32, sharding=state["step"].sharding)}
    try:
        for step, bound in ((8, estimate), (9, None)):
            store.save(step, state, Position("a" * 64, "b" * 64, bound))
            store.wait()
            assert store.restore(step, shapes).position == Position("a" * 64, "b" * 64, bound)
    finally:
        store.close()


class Journal(Executor):
    """An executor, an observer and a measurement that write down in which order they are called."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def gradient(self, state: Any, pieces: Any) -> Any:
        return {}

    def scalars(self, outputs: Any) -> Any:
        return {}

    def update(self, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
        self.lines.append(f"update {step}")
        return state

    def after_step(self, completed: CompletedStep) -> None:
        self.lines.append(f"after {completed.step}")

    def before_update(self, batch: StepBatch, state: Any, outputs: Any, scalars: Any) -> None:
        self.lines.append(f"before {batch.step}")


def test_a_step_is_handed_over_before_the_next_is_measured_and_measured_before_its_update() -> None:
    journal: Any = Journal()
    batches = (StepBatch(step, (), "") for step in (1, 2))
    train(journal, {}, batches, [journal], lambda step: False, journal.before_update)
    assert journal.lines == [
        "before 1", "update 1", "after 1", "before 2", "update 2", "after 2"
    ]  # fmt: skip


BASE = """
model: {name: mlp, hidden: [4]}
data: {name: digits}
loss: {name: softmax_cross_entropy}
optimizer: {name: sgd, learning_rate: 0.1}
training: {steps: 4, batch_size: 8}
"""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attest.bound=5"], r"attest\.bound: 5 does not fit \(did you mean 'every 5'\?\)"),
        (["attest.bound=every 0"], r"attest\.bound: text 'every 0' does not fit"),
        (["attest.bnd=every 5"], r"attest\.bnd: unknown field \(did you mean bound\?\)"),
        (["attest.bound=every 5", "runner.workers=2", "mesh.data=2"], r"measured by one process"),
        (["attest.bound=every 5", "attest.mode=off"], r"no row of ours is signed"),
        (["attest.bound=every 5", "plan.kind=native"], r"no row of ours is signed"),
    ],
)
def test_a_bound_that_cannot_be_declared_is_refused_with_what_to_do(
    overrides: list[str], words: str, tmp_path: Any
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE)
    with pytest.raises(ConfigError, match=words):
        load_experiment(path, overrides)
