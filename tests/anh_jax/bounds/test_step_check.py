"""Honest executors of one step pass all checks, though their bits differ; the first step too."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.gradient_check import RowNumbers
from anh_jax.bounds.spread import SpreadEstimator
from anh_jax.bounds.step_check import CommittedStep, StepCheck
from anh_jax.bounds.step_statistics import StepStatistics
from anh_jax.bounds.update_spread import UpdateSpreadEstimator
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.errors import ProgramError
from anh_jax.experiment import load_experiment
from anh_jax.preparation import prepare
from anh_jax.workbench import Materials, MeshSizes, Workbench, materials_of

MODELS = {
    "mlp": "{name: mlp, hidden: [16], classes: 10}",
    "vit": "{name: vision_transformer, patch_size: 4, width: 16, depth: 1, heads: 2, "
    "mlp_width: 24, classes: 10}",
}
CONFIG = """
model: {model}
data: {{name: digits, holdout: {{fraction: 0.2}}}}
loss: {{name: softmax_cross_entropy}}
optimizer: {{name: {optimizer}, learning_rate: 1e-2, weight_decay: 0.01, clip_norm: 1.0}}
training: {{steps: 24, batch_size: 24, seed: 3}}
"""
COLD, WARM = 1, 12
ONE = MeshSizes()
# How an honest trainer may compute the same step: on another mesh, in pieces, in another order.
VARIANTS: dict[str, Any] = {
    "two devices": (MeshSizes(data=2), None, 1),
    "four devices": (MeshSizes(data=4), None, 1),
    "microbatches of 8": (ONE, 8, 1),
    "reversed batch": (ONE, None, -1),
}


class Judged:
    """A contract, the auditor's check of its steps, and the states on the way to them."""

    def __init__(self, folder: Path, model: str, optimizer: str) -> None:
        config = folder / "config.yaml"
        config.write_text(CONFIG.format(model=MODELS[model], optimizer=optimizer))
        self.materials: Materials = materials_of(prepare(load_experiment(config)))
        self.bench = Workbench(self.materials, ONE, microbatch=None)
        rules = self.materials.contract.numerics.rules
        spreads = SpreadEstimator(self.materials.programs.stored["gradient"], rules)
        self.check = StepCheck(self.bench, spreads)
        state, self.before = self.bench.executor.initial_state(3), {}
        for step in range(1, WARM + 1):
            self.before[step] = jax.tree.map(jnp.copy, state)
            outputs = self.bench.executor.gradient(state, self.bench.batch(step).pieces)
            scalars = self.bench.executor.scalars(outputs)
            state = self.bench.executor.update(state, outputs, scalars, step)

    def committed(self, bench: Workbench, order: int, step: int) -> CommittedStep:
        """Return a step as an honest trainer computes it on its own bench."""
        pieces = [{k: v[::order] for k, v in piece.items()} for piece in bench.batch(step).pieces]
        shardings = jax.tree.map(lambda leaf: leaf.sharding, bench.abstract_state())
        before = jax.device_put(self.before[step], shardings)
        outputs = bench.executor.gradient(before, pieces)
        scalars = bench.executor.scalars(outputs)
        after = bench.executor.update(jax.tree.map(jnp.copy, before), outputs, scalars, step)
        numbers = RowNumbers(
            loss=float(np.asarray(outputs["loss"])),
            weight=float(np.asarray(scalars["weight"])),
            global_norm=float(np.asarray(scalars["globalNorm"])),
            finite=bool(np.asarray(scalars["finite"])),
        )
        return CommittedStep(step, self.before[step], outputs, after, numbers)


@pytest.fixture(scope="module", params=[("mlp", "adamw"), ("mlp", "momentum"), ("vit", "lion")],
                ids="-".join)  # fmt: skip
def judged(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("contract"), *request.param)


def every(found: StepStatistics) -> dict[str, float]:
    named = {"a": found.a, "row": found.a_row, "zeros": found.zeros, "a2": found.a2,
             "b": found.b, "walk": found.walk}  # fmt: skip
    return {name: s.value for name, s in named.items() if s is not None}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name == "four devices" else [])
        for name in VARIANTS
    ],
)
def test_honest_executor_passes_cold_and_warm(judged: Judged, name: str) -> None:
    sizes, microbatch, order = VARIANTS[name]
    bench = Workbench(judged.materials, sizes, microbatch=microbatch)
    walk = PairwiseCosine()
    for step in (COLD, WARM - 1, WARM):
        committed = judged.committed(bench, order, step)
        found = judged.check.check(committed, seed=step, walk=walk)
        assert found.outcome == "pass", (found.words, every(found))
        assert found.a.value > 0, "this executor gives the auditor's bits: it shows nothing"
        assert max(every(found).values()) <= 1
    assert walk.statistic().accepted


def test_own_bits_pass(judged: Judged) -> None:
    found = judged.check.check(judged.committed(judged.bench, 1, WARM), seed=1)
    assert found.outcome == "pass"
    assert (found.a.value, found.a_row.value, found.zeros.value) == (0, 0, 0)


def test_same_seed_gives_the_same_statistics(judged: Judged) -> None:
    committed = judged.committed(judged.bench, -1, WARM)
    first, again, other = (judged.check.check(committed, seed=seed) for seed in (5, 5, 6))
    assert every(first) == every(again) != every(other)


@pytest.mark.parametrize("drop", ["one example", "one label"])
def test_one_example_less_or_relabelled_is_refuted_by_far(judged: Judged, drop: str) -> None:
    bench, step = judged.bench, WARM
    pieces = []
    for piece in bench.batch(step).pieces:
        name, change = ("weight", lambda x: x * 0)
        if drop == "one label":
            name, change = "label", lambda x: (x + 1) % 10
        pieces.append({**piece, name: piece[name].at[3].set(change(piece[name][3]))})
    outputs = bench.executor.gradient(judged.before[step], pieces)
    honest = judged.committed(bench, 1, step)
    changed = CommittedStep(step, honest.before, outputs, honest.after, honest.numbers)
    found = judged.check.check(changed, seed=1)
    assert found.outcome == "refuted"
    assert found.a.value > 100


@pytest.fixture(scope="module")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("mixing"), "mlp", "adafactor")


def test_update_that_mixes_elements_passes_by_its_spread(mixing: Judged) -> None:
    for step in (COLD, WARM):
        found = mixing.check.check(mixing.committed(mixing.bench, -1, step), seed=1)
        assert found.outcome == "pass", (found.words, every(found))
        assert found.walk is None


@pytest.mark.parametrize("fault", ["larger rate", "frozen tensor", "not a number"])
def test_wrong_update_that_mixes_elements_is_refuted(mixing: Judged, fault: str) -> None:
    honest = mixing.committed(mixing.bench, 1, WARM)
    change = {
        "larger rate": lambda old, new: old + np.float32(1.001) * (new - old),
        "frozen tensor": lambda old, new: old,
        "not a number": lambda old, new: new * np.float32("nan"),
    }[fault]
    moved = jax.tree.map(change, honest.before["parameters"], honest.after["parameters"])
    after = {**honest.after, "parameters": moved}
    committed = CommittedStep(WARM, honest.before, honest.outputs, after, honest.numbers)
    found = mixing.check.check(committed, seed=1)
    assert found.outcome == "refuted" and not found.b.accepted


def test_update_that_rounding_cannot_be_followed_through_is_judged_by_its_bits(
    mixing: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*unused: Any, **named: Any) -> Any:
        raise ProgramError("program update: operator of no known rounding")

    monkeypatch.setattr(UpdateSpreadEstimator, "of", blind)
    honest = mixing.committed(mixing.bench, 1, WARM)
    assert mixing.check.check(honest, seed=1).outcome == "pass"
    after = {
        **honest.after,
        "parameters": jax.tree.map(lambda x: 2 * x, honest.after["parameters"]),
    }
    committed = CommittedStep(WARM, honest.before, honest.outputs, after, honest.numbers)
    found = mixing.check.check(committed, seed=1)
    assert found.outcome == "unattestable"
    assert found.words.startswith("rounding cannot be followed to parameters/")
    assert found.words.endswith("program update: operator of no known rounding")


@pytest.mark.parametrize("name", ["loss", "weight", "global_norm"])
def test_number_too_large_for_float32_is_refuted(judged: Judged, name: str) -> None:
    honest = judged.committed(judged.bench, 1, WARM)
    numbers = dataclasses.replace(honest.numbers, **{name: 1e300})
    found = judged.check.check(dataclasses.replace(honest, numbers=numbers), seed=1)
    assert found.outcome == "refuted"
