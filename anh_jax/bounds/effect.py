"""Check A2, effect: what the distance of a gradient does to the parameters, in learning rates.

A direction in which the gradient is small may hide in check A and still move parameters a lot: an
adaptive optimizer divides by what it has seen there. So `update` is run on the committed gradient
and on the reference, both from the committed optimizer state, and the two updates are compared
block by block, by their root mean square.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np

from anh_jax.bounds.blocks import block_name, block_sizes, block_sums
from anh_jax.bounds.statistic import Array, Statistic, largest
from anh_jax.program.tree import Path, path_text
from attest.numerics_class import COLD_STEPS, ClassRules


def effect_limit(rules: ClassRules, *, optimizer: str, step: int) -> float | None:
    """Return the fraction of a learning rate that A2 allows at a step; None where it says nothing.

    Gradient descent, with a velocity or not, is linear in the gradient: A2 would be A again.
    """
    if optimizer in rules.a2_exempt:
        return None
    return rules.a2 if step >= COLD_STEPS else rules.a2_cold


def check_effect(
    differences: Mapping[Path, Array], *, limit: float, passed_over: Collection[Path]
) -> Statistic:
    """Return the largest rms difference of two updates over `limit`, over all blocks.

    `differences` are float64, by parameter, and `limit` is in their unit; tensors that are
    `passed_over` count for nothing.
    """
    return largest(
        _tensor(path_text(path), difference, limit)
        for path, difference in differences.items()
        if path not in passed_over
    )


def beyond_rounding(committed: Array, reference: Array) -> Array:
    """Return the difference of two tensors, less a unit in the last place of each element."""
    wide = reference.astype(np.float64)
    difference = committed.astype(np.float64) - wide
    unit = np.spacing(np.abs(reference)).astype(np.float64)
    return np.sign(difference) * np.maximum(np.abs(difference) - unit, 0.0)


def _tensor(name: str, difference: Array, limit: float) -> Statistic:
    found: list[Statistic] = []
    sizes = block_sizes(difference.shape)
    for family, squares in enumerate(block_sums(difference**2)):
        if not np.size(squares):
            continue
        worst = int(np.argmax(squares))
        rms = math.sqrt(float(np.ravel(squares)[worst]) / sizes[family])
        where = f"{name}{block_name(difference.shape, family, worst)}"
        found.append(Statistic(_over(rms, limit), where))
    return largest(found)


def _over(rms: float, limit: float) -> float:
    # Where nothing can move (a learning rate of zero) the updates are equal, or something is wrong.
    if limit == 0:
        return 0.0 if rms == 0 else math.inf
    return rms / limit
