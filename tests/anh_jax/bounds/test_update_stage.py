"""Check B accepts every honest compiler of an update and refuses what no rounding explains."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.update_judge import ElementwiseJudge, JudgedUpdate
from anh_jax.bounds.update_stage import UpdateInputs, UpdateStage
from anh_jax.experiment_optimizers import AdamW, Lion, Momentum, Schedule, Sgd
from anh_jax.program.functions import update_function
from anh_jax.training.optimizer import build_optimizer

CONFIGS = {
    "sgd": Sgd(learning_rate=0.1, weight_decay=0.01),
    "momentum": Momentum(learning_rate=0.1, clip_norm=0.5),
    "adamw": AdamW(learning_rate=1e-3, weight_decay=0.01, clip_norm=0.5),
    "lion": Lion(learning_rate=1e-4, weight_decay=0.1),
}
U = 2.0**-24


class Case:
    """An update of one optimizer after a few steps: its inputs, and how it may be computed."""

    def __init__(self, config, *, step: int, seed: int) -> None:
        self.config = config
        random = np.random.default_rng(seed)
        optimizer = build_optimizer(config)
        table = optimizer.constants_table(step + 1)
        self.function = update_function(optimizer)
        parameters = {"w": random.normal(size=(33, 7)).astype(np.float32), "b": np.zeros(5, "f4")}
        self.state = {
            "parameters": parameters,
            "optimizer": optimizer.init(parameters),
            "step": np.uint32(0),
        }
        for number in range(step + 1):
            self.gradient = {
                name: (48 * random.normal(size=value.shape)).astype(np.float32)
                for name, value in parameters.items()
            }
            norm = math.hypot(*(float(np.linalg.norm(g)) / 48 for g in self.gradient.values()))
            self.scalars = {
                "globalNorm": np.float32(norm),
                "finite": np.uint32(1),
                "weight": np.float32(48),
            }
            self.constants = table.values[number]
            if number < step:
                self.state = jax.tree.map(np.asarray, self.compiled())
        self.inputs = UpdateInputs(
            before=self.state,
            gradient=self.gradient,
            weight=48.0,
            global_norm=norm,
            finite=True,
            constants=dict(zip(table.names, self.constants.tolist(), strict=True)),
        )

    def compiled(self):
        return jax.jit(self.function)(self.state, self.gradient, self.scalars, self.constants)

    def one_by_one(self):
        """Compute without fusing: other roundings, honest too."""
        with jax.disable_jit():
            return self.function(
                jax.tree.map(jnp.asarray, self.state),
                jax.tree.map(jnp.asarray, self.gradient),
                jax.tree.map(jnp.asarray, self.scalars),
                jnp.asarray(self.constants),
            )

    def check(self, after, inputs=None, config=None):
        judge = ElementwiseJudge(UpdateStage(config or self.config, unit_roundoff=U))
        update = JudgedUpdate(inputs or self.inputs, after, self.compiled())
        return judge.judge(update, seed=0, walk=None).b


@pytest.mark.parametrize("step", [0, 6])
@pytest.mark.parametrize("name", CONFIGS)
def test_honest_update_by_another_compiler_is_accepted(name: str, step: int) -> None:
    for seed in range(3):
        case = Case(CONFIGS[name], step=step, seed=seed)
        found = case.check(case.one_by_one())
        assert found.accepted, found


@pytest.mark.parametrize("name", CONFIGS)
def test_larger_learning_rate_is_refused(name: str) -> None:
    case = Case(CONFIGS[name], step=3, seed=5)
    honest = case.compiled()
    moved = jax.tree.map(
        lambda old, new: old + np.float32(1.0001) * (new - old),
        case.state["parameters"],
        honest["parameters"],
    )
    found = case.check({**honest, "parameters": moved})
    assert not found.accepted
    assert found.where.startswith("parameters/")


@pytest.mark.parametrize("name", CONFIGS)
def test_frozen_tensor_is_refused(name: str) -> None:
    case = Case(CONFIGS[name], step=3, seed=6)
    honest = case.compiled()
    frozen = {**honest["parameters"], "b": case.state["parameters"]["b"]}
    assert not case.check({**honest, "parameters": frozen}).accepted


@pytest.mark.parametrize("name, slot", [("momentum", "velocity"), ("adamw", "second"),
                                        ("lion", "momentum")])  # fmt: skip
def test_changed_slot_is_refused_although_parameters_follow_from_it(name: str, slot: str) -> None:
    case = Case(CONFIGS[name], step=3, seed=7)
    honest = case.compiled()
    slots = {**honest["optimizer"]}
    slots[slot] = {**slots[slot], "w": slots[slot]["w"] * np.float32(1.00001)}
    found = case.check({**honest, "optimizer": slots})
    assert not found.accepted


def test_missing_weight_decay_is_refused() -> None:
    config = CONFIGS["adamw"]
    case = Case(config, step=3, seed=8)
    other = Case(AdamW(learning_rate=1e-3, weight_decay=0.0, clip_norm=0.5), step=3, seed=8)
    other.state, other.gradient = case.state, case.gradient
    assert not case.check(other.compiled()).accepted


def test_update_that_is_not_a_number_is_refused() -> None:
    case = Case(CONFIGS["adamw"], step=1, seed=9)
    honest = case.compiled()
    bad = jax.tree.map(lambda x: x * np.float32("nan"), honest["parameters"])
    assert not case.check({**honest, "parameters": bad}).accepted


def test_step_that_is_not_finite_moves_nothing() -> None:
    case = Case(CONFIGS["adamw"], step=1, seed=10)
    inputs = dataclasses.replace(case.inputs, finite=False)
    assert case.check(case.state, inputs).accepted
    moved = case.check(case.compiled(), inputs)
    assert not moved.accepted and "moved in a step that is not finite" in moved.where


def test_program_of_another_rule_accepts_nothing() -> None:
    case = Case(CONFIGS["adamw"], step=2, seed=11)
    config = AdamW(learning_rate=1e-3, weight_decay=0.01, clip_norm=0.5, epsilon=1e-3)
    found = case.check(case.compiled(), config=config)
    assert not found.accepted
    assert "the update program is of another rule" in found.where


def test_lion_takes_either_sign_where_rounding_decides_it() -> None:
    stage = UpdateStage(CONFIGS["lion"], unit_roundoff=U)
    kept = np.array([1.0, 1.0], np.float32)
    fresh = np.array([np.nextafter(np.float32(-1), np.float32(0)), -0.5], np.float32)
    signs = np.stack(stage._signs(kept, fresh))
    assert set(signs[:, 0]) == {-1.0, 0.0, 1.0}
    assert set(signs[:, 1]) == {1.0}


def test_schedule_is_part_of_the_constants() -> None:
    config = AdamW(learning_rate=1e-2, schedule=Schedule(kind="cosine", warmup_steps=2))
    case = Case(config, step=4, seed=12)
    assert case.check(case.one_by_one()).accepted


def test_velocity_is_allowed_the_size_of_its_terms() -> None:
    """The terms of a velocity may cancel: its change is then no measure of their rounding."""
    case = Case(CONFIGS["momentum"], step=3, seed=13)
    honest = case.compiled()
    stage = UpdateStage(case.config, unit_roundoff=U)
    terms = np.abs(0.9 * case.state["optimizer"]["velocity"]["w"])
    slots = {"velocity": {**honest["optimizer"]["velocity"]}}
    slots["velocity"]["w"] = (slots["velocity"]["w"] + 8 * U * terms).astype(np.float32)
    found = {r.name: r.worst for r in stage.residuals(
        case.inputs, {**honest, "optimizer": slots}, honest)}  # fmt: skip
    assert found["optimizer/velocity/w"].accepted
    slots["velocity"]["w"] = (slots["velocity"]["w"] + 40 * U * terms).astype(np.float32)
    found = {r.name: r.worst for r in stage.residuals(
        case.inputs, {**honest, "optimizer": slots}, honest)}  # fmt: skip
    assert not found["optimizer/velocity/w"].accepted


@pytest.mark.parametrize("step", [0, 6])
@pytest.mark.parametrize("name", CONFIGS)
def test_honest_update_by_another_compiler_is_no_walk(name: str, step: int) -> None:
    case = Case(CONFIGS[name], step=step, seed=14)
    judge = ElementwiseJudge(UpdateStage(case.config, unit_roundoff=U))
    update = JudgedUpdate(case.inputs, case.one_by_one(), case.compiled())
    walk = judge.judge(update, seed=0, walk=None).walk
    assert walk is not None and walk.accepted


def test_unit_added_to_every_parameter_is_a_walk_and_passes_element_by_element() -> None:
    case = Case(CONFIGS["adamw"], step=6, seed=15)
    honest = case.compiled()
    up = jax.tree.map(lambda x: np.nextafter(x, np.float32(np.inf)), honest["parameters"])
    judge = ElementwiseJudge(UpdateStage(case.config, unit_roundoff=U))
    after = {**honest, "parameters": up}
    found = judge.judge(JudgedUpdate(case.inputs, after, honest), seed=0, walk=None)
    assert found.b.accepted
    assert found.walk is not None and not found.walk.accepted
    assert found.walk.where == "parameters/w"


def test_negative_square_is_refuted_however_small() -> None:
    case = Case(CONFIGS["adamw"], step=0, seed=4)
    gradient = {**case.gradient, "w": case.gradient["w"].copy()}
    gradient["w"][2, 3] = 0  # a dead unit's: its second moment stays 0
    case.gradient = gradient
    inputs = dataclasses.replace(case.inputs, gradient=gradient)
    honest = jax.tree.map(np.array, case.compiled())
    judge = ElementwiseJudge(UpdateStage(CONFIGS["adamw"], unit_roundoff=U))
    assert judge.judge(JudgedUpdate(inputs, honest, honest), seed=1, walk=None).b.accepted
    after = jax.tree.map(np.array, honest)
    # Below the smallest tolerance there is; its root is what makes the parameter no number.
    after["optimizer"]["second"]["w"][2, 3] = -1e-38
    after["parameters"]["w"][2, 3] = np.nan
    found = judge.judge(JudgedUpdate(inputs, after, honest), seed=1, walk=None)
    assert found.b.value == math.inf and "negative square" in found.b.where
