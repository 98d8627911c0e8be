"""Squared deviations of random draws, by tensor and block: what a spread is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.squares import Sums, host_sums, square_sums
from anh_jax.program.tree import Path, Tree, leaves_of


@dataclass(frozen=True)
class TensorSpread:
    """Hold the spread of one output.

    Attributes:
        square: mean over the samples of the squared norm of the deviation.
        blocks: the same for each block of each family of `blocks.block_sums`, float64.
        zero: for each element, whether the deviation was exactly zero in every sample.
    """

    square: float
    blocks: tuple[np.ndarray[Any, Any], ...]
    zero: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Spread:
    """Hold the spread of every output of a gradient program, by path."""

    tensors: Mapping[Path, TensorSpread]


class Deviations:
    """Adds up squared deviations: over blocks on the device, over samples on the host.

    Samples that are values deviate from their own mean, which costs one of them and saves computing
    values without noise. Sums are taken from `pivot`, the first of them: differences of neighbours
    are exact in float32, and what their mean adds is taken off at the end. Samples that deviate
    from zero already have no pivot.
    """

    def __init__(self, pivot: Tree | None) -> None:
        self._pivot = pivot
        self._sums: list[dict[Path, Sums]] = []
        self._total: Tree = None
        self._moving: Tree = None

    def add(self, moved: Tree) -> None:
        """Add one sample."""
        if self._pivot is not None:
            moved = _difference(moved, self._pivot)
            self._total = added(self._total, moved)
        self._sums.append(leaves_of(_square_sums(moved)))
        self._moving = either(self._moving, nonzero(moved))

    def spread(self, *, unit: float) -> Spread:
        """Return mean squares over the samples, deviations counted in `unit`."""
        samples = len(self._sums)
        free = samples if self._pivot is None else samples - 1
        means = (
            {} if self._pivot is None else leaves_of(_square_sums(_scaled(self._total, samples)))
        )
        moving = leaves_of(self._moving)
        scale = unit**2 / max(free, 1)
        return Spread(
            {
                path: self._tensor(path, np.asarray(moving[path]), means.get(path), scale)
                for path in moving
            }
        )

    def _tensor(
        self, path: Path, moving: np.ndarray[Any, Any], mean: Sums | None, scale: float
    ) -> TensorSpread:
        families = zip(*(host_sums(sums[path]) for sums in self._sums), strict=True)
        totals = [np.sum(family, axis=0) for family in families]
        if mean is not None:
            squares = zip(totals, host_sums(mean), strict=True)
            totals = [np.maximum(total - len(self._sums) * m, 0.0) for total, m in squares]
        blocks = tuple(total * scale for total in totals)
        return TensorSpread(float(blocks[0].sum()), blocks, ~moving)


@jax.jit
def _square_sums(tree: Tree) -> Tree:
    return jax.tree.map(square_sums, tree)


@jax.jit
def _sum(left: Tree, right: Tree) -> Tree:
    return jax.tree.map(jnp.add, left, right)


@jax.jit
def _difference(left: Tree, right: Tree) -> Tree:
    return jax.tree.map(lambda x, y: x.astype(jnp.float32) - y.astype(jnp.float32), left, right)


@jax.jit
def _scaled(tree: Tree, samples: float) -> Tree:
    return jax.tree.map(lambda x: x / samples, tree)


@jax.jit
def nonzero(tree: Tree) -> Tree:
    """Return where each leaf is not zero."""
    # True of what is not a number, too.
    return jax.tree.map(lambda x: x != 0, tree)


@jax.jit
def _or(left: Tree, right: Tree) -> Tree:
    return jax.tree.map(jnp.logical_or, left, right)


def added(total: Tree, part: Tree) -> Tree:
    """Return the sum of two trees; `part` where there is no total yet."""
    return part if total is None else _sum(total, part)


def either(before: Tree, now: Tree) -> Tree:
    """Return where one of two trees of booleans holds; `now` where there is none before."""
    return now if before is None else _or(before, now)
