"""Adafactor's second moments: a row and a column of means stand in for a matrix of squares.

Every element of the update depends on sums over its row, its column and the whole tensor, so a
difference in one element reaches others: the optimizer is `bounded`, not elementwise, and its
updates are judged by a spread as gradients are (docs/numerics.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from anh_jax.experiment_optimizers import Adafactor
from anh_jax.program.tree import Path, Tree, from_leaves, leaves_of
from anh_jax.training.constants import Column

KEPT, FRESH = "secondKept", "secondFresh"
# Slots of the optimizer's state: row and column means of factored tensors, squares of the others.
ROW, COLUMN, FULL = "row", "column", "full"


@dataclass(frozen=True)
class Factored:
    """Hold the moments after a step, by slot, and where the rule points."""

    direction: Tree
    state: Tree


def factored_columns(config: Adafactor) -> Mapping[str, Column]:
    """Return the table's columns: what is kept of the moments at step t, 1 - t^-e, and the rest.

    Shazeer and Stern, arXiv:1804.04235, section 7.2. Step 1 keeps nothing.
    """
    exponent = config.decay_exponent

    def kept(step: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
        # expm1 keeps the digits that 1 - t**-e loses near step 1.
        return -np.expm1(-exponent * np.log(step))

    return {KEPT: kept, FRESH: lambda step: step**-exponent}


def factored_init(config: Adafactor, parameters: Tree) -> Tree:
    """Return moments of zero: `row` and `column` for factored tensors, `full` for the others."""
    slots: dict[Path, Array] = {}
    for path, value in leaves_of(parameters).items():
        if _is_factored(config, value):
            slots[(ROW, *path)] = jnp.zeros(value.shape[:-1], jnp.float32)
            slots[(COLUMN, *path)] = jnp.zeros((*value.shape[:-2], value.shape[-1]), jnp.float32)
        else:
            slots[(FULL, *path)] = jnp.zeros(value.shape, jnp.float32)
    return from_leaves(slots)


def factored_point(
    config: Adafactor, gradient: Tree, state: Tree, kept: Array, fresh: Array
) -> Factored:
    """Return the direction of a mean gradient and the moments after it (Algorithms 4 and 6)."""
    slots = leaves_of(state)
    moved: dict[Path, Array] = {}
    directions: dict[Path, Array] = {}
    for path, value in leaves_of(gradient).items():
        squares = jnp.square(value) + config.epsilon
        if _is_factored(config, value):
            row = kept * slots[(ROW, *path)] + fresh * jnp.mean(squares, axis=-1)
            column = kept * slots[(COLUMN, *path)] + fresh * jnp.mean(squares, axis=-2)
            moved[(ROW, *path)], moved[(COLUMN, *path)] = row, column
            # Root by root: the quotient of a row of zeros and a large mean is below float32.
            share = jax.lax.rsqrt(row) * jnp.sqrt(jnp.mean(row, axis=-1, keepdims=True))
            pointed = value * share[..., :, None] * jax.lax.rsqrt(column)[..., None, :]
        else:
            full = kept * slots[(FULL, *path)] + fresh * squares
            moved[(FULL, *path)] = full
            pointed = value * jax.lax.rsqrt(full)
        directions[path] = _clipped(pointed, config.update_clip)
    return Factored(from_leaves(directions), from_leaves(moved))


def _is_factored(config: Adafactor, value: Array) -> bool:
    """Tell whether both of the last two axes are long enough to be worth it."""
    return value.ndim >= 2 and min(value.shape[-2:]) >= config.factored_from


def _clipped(update: Array, limit: float) -> Array:
    """Scale an update whose root mean square is above the limit down to it (section 6)."""
    size = jnp.sqrt(jnp.sum(jnp.square(update)) / math.prod(update.shape))
    return update / jnp.maximum(size / limit, 1.0)
