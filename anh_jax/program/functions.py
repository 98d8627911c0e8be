"""The five pure functions that a contract's programs are traced from.

All outputs of `gradient` are sums over examples, so a step can be cut into microbatches and added
up; randomness is folded from (seed, step, example id), so a cut does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from anh_jax.models.losses import ExampleLosses, Loss
from anh_jax.models.model import Model
from anh_jax.program.tree import Tree
from anh_jax.training.optimizer import CLIP_NORM, Optimizer

ID, WEIGHT = "id", "weight"
# The step counter never reaches this, so the key that draws the parameters is never a step's key.
INIT_FOLD = 2**32 - 1


def init_function(model: Model, optimizer: Optimizer) -> Callable[..., Tree]:
    """Return `init(seed) -> state`; seed is two words, high then low."""

    def init(seed: UInt32[Array, 2]) -> Tree:
        key = jax.random.wrap_key_data(seed, impl="threefry2x32")
        parameters = model.init(jax.random.fold_in(key, INIT_FOLD))
        return {
            "key": key,
            "step": jnp.zeros((), jnp.uint32),
            "parameters": parameters,
            "optimizer": optimizer.init(parameters),
        }

    return init


def gradient_function(model: Model, loss: Loss) -> Callable[..., Tree]:
    """Return `gradient(state, examples, key) -> sums over examples`.

    The outputs are `gradient` (like the parameters), `statistics`, `loss` and `weight`.
    """

    def gradient(state: Tree, examples: Mapping[str, Array], key: Key[Array, ""]) -> Tree:
        keys = example_keys(key, state["step"], examples[ID])
        weight = examples[WEIGHT]

        def total(parameters: Tree) -> tuple[Array, dict[str, Array]]:
            losses = _losses(model, loss, parameters, examples, keys)
            sums = {name: _weighted_sum(weight, x) for name, x in losses.statistics.items()}
            return jnp.sum(weight * losses.loss), sums

        (value, statistics), summed = jax.value_and_grad(total, has_aux=True)(state["parameters"])
        return {
            "gradient": summed,
            "statistics": statistics,
            "loss": value,
            "weight": jnp.sum(weight),
        }

    return gradient


def scalars(outputs: Tree) -> Tree:
    """Return what only a whole batch knows: the mean gradient's norm, finiteness, the weight."""
    scale = _reciprocal(outputs["weight"])
    squares = [jnp.sum(jnp.square(x * scale)) for x in jax.tree.leaves(outputs["gradient"])]
    norm = jnp.sqrt(sum(squares[1:], start=squares[0]))
    # A norm is finite only if each element is; one that overflows float32 is no step to take.
    finite = jnp.isfinite(norm) & jnp.isfinite(outputs["loss"])
    return {
        "globalNorm": norm,
        "finite": finite.astype(jnp.uint32),
        "weight": outputs["weight"],
    }


def update_function(optimizer: Optimizer) -> Callable[..., Tree]:
    """Return `update(state, gradient, scalars, constants) -> state`, elementwise.

    After a step that is not finite only the step counter moves.
    """

    def update(
        state: Tree, gradient: Tree, scalars: Tree, constants: Float[Array, " constants"]
    ) -> Tree:
        named = {name: _entry(constants, i) for i, name in enumerate(optimizer.constants)}
        scale = _reciprocal(scalars["weight"])
        if CLIP_NORM in named:
            # A norm below the threshold gives one, a norm of zero too.
            limit = jnp.maximum(scalars["globalNorm"], named[CLIP_NORM])
            scale = scale * (named[CLIP_NORM] / limit)
        mean = jax.tree.map(lambda x: x * scale, gradient)
        step = optimizer.update(mean, state["optimizer"], state["parameters"], named)
        finite = scalars["finite"] == jnp.uint32(1)

        def keep(new: Tree, old: Tree) -> Tree:
            return jax.tree.map(lambda a, b: jax.lax.select(_like(finite, a), a, b), new, old)

        return {
            "parameters": keep(step.parameters, state["parameters"]),
            "optimizer": keep(step.state, state["optimizer"]),
            "step": state["step"] + jnp.uint32(1),
        }

    return update


def evaluate_function(model: Model, loss: Loss) -> Callable[..., Tree]:
    """Return `evaluate(parameters, examples) -> counts and summed loss`, padding left out.

    `loss` is summed over answers: divided by `total` it is the mean per answer, in nats.
    """

    def evaluate(parameters: Tree, examples: Mapping[str, Array]) -> Tree:
        losses = _losses(model, loss, parameters, examples, None)
        counted = (examples[WEIGHT] > 0).astype(jnp.uint32)
        total = losses.total * counted
        return {
            "correct": jnp.sum(losses.correct * counted, dtype=jnp.uint32),
            "total": jnp.sum(total, dtype=jnp.uint32),
            "loss": jnp.sum(losses.loss * total.astype(jnp.float32)),
        }

    return evaluate


def example_keys(
    key: Key[Array, ""], step: UInt32[Array, ""], ids: UInt32[Array, " b"]
) -> Key[Array, " b"]:
    """Return one key per example, folded from the run's key, the step and the example's id."""
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, ids)


def _losses(
    model: Model,
    loss: Loss,
    parameters: Tree,
    examples: Mapping[str, Array],
    keys: Key[Array, " b"] | None,
) -> ExampleLosses:
    fields = {name: value for name, value in examples.items() if name not in (ID, WEIGHT)}
    return loss(model.apply(parameters, fields, keys=keys), fields)


def _weighted_sum(weight: Float[Array, " b"], values: Float[Array, "b ..."]) -> Array:
    expanded = weight.reshape(weight.shape + (1,) * (values.ndim - 1))
    return jnp.sum(expanded * values, axis=0)


def _reciprocal(weight: Float[Array, ""]) -> Float[Array, ""]:
    # A batch of padding alone has weight zero and gradients of zero.
    return jnp.where(weight > 0, 1.0 / jnp.where(weight > 0, weight, 1.0), 0.0)


def _entry(constants: Float[Array, " constants"], index: int) -> Float[Array, ""]:
    # Static slices: a gather would not be elementwise.
    return jax.lax.slice(constants, (index,), (index + 1,)).reshape(())


def _like(flag: Any, array: Array) -> Any:
    return jnp.broadcast_to(flag, array.shape)
