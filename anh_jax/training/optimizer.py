"""Optimizers as rules whose step-dependent constants are inputs, all but Adafactor elementwise.

Like optax's transformations, but `update` computes nothing from the step's number: learning rate,
bias corrections and clip threshold come from a table (training/constants.py), the global norm from
the `scalars` program. What remains is the same float32 arithmetic on every backend, element by
element, and can be checked almost exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from anh_jax.experiment_optimizers import (
    Adafactor,
    AdamW,
    Lion,
    Momentum,
    OptimizerConfig,
    Sgd,
)
from anh_jax.program.tree import Tree
from anh_jax.program.update_check import UpdateKind
from anh_jax.training.constants import (
    Column,
    ConstantsTable,
    constants_table,
    learning_rate,
    moment_correction,
)
from anh_jax.training.factored import FRESH, KEPT, factored_columns, factored_init, factored_point

Constants: TypeAlias = Mapping[str, Float[Array, ""]]

LEARNING_RATE = "learningRate"
CLIP_NORM = "clipNorm"
FIRST_CORRECTION = "firstCorrection"
SECOND_CORRECTION = "secondCorrection"


@dataclass(frozen=True)
class Direction:
    """Hold a rule's new state and where it points; parameters move against `direction`."""

    direction: Tree
    state: Tree


@dataclass(frozen=True)
class Step:
    """Hold what one optimizer step gives."""

    parameters: Tree
    state: Tree


@dataclass(frozen=True)
class _Rule:
    init: Callable[[Tree], Tree]
    point: Callable[[Tree, Tree, Constants], Direction]
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer whose constants are inputs.

    Attributes:
        name: as in the contract.
        kind: `elementwise`: checked on the module, its updates are judged by check B; `bounded`:
            elements mix, its updates are judged by a spread.
        config: the configuration it was built from.
    """

    name: str
    kind: UpdateKind
    config: OptimizerConfig
    rule: _Rule

    @property
    def constants(self) -> tuple[str, ...]:
        """Return the names of the constants, in the order of the table's columns."""
        clip = (CLIP_NORM,) if self.config.clip_norm is not None else ()
        return (LEARNING_RATE, *self.rule.columns, *clip)

    def init(self, parameters: Tree) -> Tree:
        """Return the optimizer state of fresh parameters: slots of zeros, by name."""
        return self.rule.init(parameters)

    def update(self, gradient: Tree, state: Tree, parameters: Tree, constants: Constants) -> Step:
        """Take one step along a mean gradient, already clipped."""
        pointed = self.rule.point(gradient, state, constants)
        rate, decay = constants[LEARNING_RATE], self.config.weight_decay

        def move(direction: Float[Array, ...], value: Float[Array, ...]) -> Array:
            return -rate * (direction + decay * value if decay else direction)

        updates = jax.tree.map(move, pointed.direction, parameters)
        moved: Tree = optax.apply_updates(parameters, updates)
        return Step(moved, pointed.state)

    def constants_table(self, steps: int) -> ConstantsTable:
        """Return the constants of a run of that many steps."""
        config = self.config
        columns = {LEARNING_RATE: learning_rate(config.learning_rate, config.schedule, steps)}
        columns.update(self.rule.columns)
        if (clip := config.clip_norm) is not None:
            columns[CLIP_NORM] = lambda step: np.full(step.shape, clip)
        return constants_table(columns, steps)


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """Build the configured optimizer."""
    match config:
        case Sgd():
            return Optimizer("sgd", "elementwise", config, _sgd())
        case Momentum():
            return Optimizer("momentum", "elementwise", config, _momentum(config))
        case AdamW():
            return Optimizer("adamw", "elementwise", config, _adamw(config))
        case Lion():
            return Optimizer("lion", "elementwise", config, _lion(config))
        case Adafactor():
            return Optimizer("adafactor", "bounded", config, _adafactor(config))


def _sgd() -> _Rule:
    def point(gradient: Tree, state: Tree, constants: Constants) -> Direction:
        return Direction(gradient, state)

    return _Rule(lambda parameters: {}, point, {})


def _momentum(config: Momentum) -> _Rule:
    trace = optax.trace(config.decay)

    def point(gradient: Tree, state: Tree, constants: Constants) -> Direction:
        velocity, _ = trace.update(gradient, optax.TraceState(state["velocity"]))
        return Direction(velocity, {"velocity": velocity})

    return _Rule(lambda parameters: {"velocity": _zeros(parameters)}, point, {})


def _adamw(config: AdamW) -> _Rule:
    def init(parameters: Tree) -> Tree:
        return {"first": _zeros(parameters), "second": _zeros(parameters)}

    def point(gradient: Tree, state: Tree, constants: Constants) -> Direction:
        first = optax.tree.update_moment(gradient, state["first"], config.beta1, 1)
        second = optax.tree.update_moment(gradient, state["second"], config.beta2, 2)
        one, two = constants[FIRST_CORRECTION], constants[SECOND_CORRECTION]
        direction = jax.tree.map(
            lambda m, v: (m / one) / (jnp.sqrt(v / two) + config.epsilon), first, second
        )
        return Direction(direction, {"first": first, "second": second})

    columns = {
        FIRST_CORRECTION: moment_correction(config.beta1),
        SECOND_CORRECTION: moment_correction(config.beta2),
    }
    return _Rule(init, point, columns)


def _lion(config: Lion) -> _Rule:
    def point(gradient: Tree, state: Tree, constants: Constants) -> Direction:
        momentum = state["momentum"]
        mixed = optax.tree.update_moment(gradient, momentum, config.beta1, 1)
        kept = optax.tree.update_moment(gradient, momentum, config.beta2, 1)
        return Direction(jax.tree.map(jnp.sign, mixed), {"momentum": kept})

    return _Rule(lambda parameters: {"momentum": _zeros(parameters)}, point, {})


def _adafactor(config: Adafactor) -> _Rule:
    def point(gradient: Tree, state: Tree, constants: Constants) -> Direction:
        kept, fresh = constants[KEPT], constants[FRESH]
        pointed = factored_point(config, gradient, state, kept, fresh)
        return Direction(pointed.direction, pointed.state)

    return _Rule(
        lambda parameters: factored_init(config, parameters), point, factored_columns(config)
    )


def _zeros(parameters: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, parameters)
