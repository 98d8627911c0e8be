"""A check's statistic: a distance over its tolerance, which accepts when it is at most 1.

The comparison is written `statistic <= 1` everywhere: what is not a number must not accept.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anh_jax.program.tree import Path, leaves_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Statistic:
    """The largest distance over tolerance of a check, and where it was found."""

    value: float
    where: str

    @property
    def accepted(self) -> bool:
        """Tell whether the check accepts."""
        return self.value <= 1


def largest(found: Iterable[Statistic]) -> Statistic:
    """Return the largest statistic; one that is not a number is larger than any."""
    top = Statistic(0.0, "nowhere")
    for statistic in found:
        if not statistic.value <= top.value:
            top = statistic
        if math.isnan(top.value):
            break
    return top


def ratios(distance: Array, tolerance: Array, differs: Array) -> Array:
    """Return distances over tolerances; 0 over 0 is 0 where no bits differ, else infinity."""
    with np.errstate(all="ignore"):
        plain = distance / tolerance
    return np.where(tolerance == 0, np.where(differs, math.inf, 0.0), plain)


def differing_bits(first: Array, second: Array) -> Array:
    """Tell for each element of two arrays of one shape and dtype whether its bits differ.

    -0.0 is not 0.0, and one not-a-number is another where its bits are.
    """
    return _bits(first) != _bits(second)


def same_bits(first: Array, second: Array) -> bool:
    """Tell whether two arrays of one shape and dtype hold the same bits."""
    return not differing_bits(first, second).any()


def host_leaves(tree: Any) -> dict[Path, Array]:
    """Return the leaves of a tree as host arrays, by path."""
    return {path: np.asarray(leaf) for path, leaf in leaves_of(tree).items()}


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
