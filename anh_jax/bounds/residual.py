"""What lies between a committed tensor of an update and the recomputed one, element by element.

The tolerance is one unit in the last place of the recomputed value and 16 unit roundoffs of the
update: fused and separate roundings of one elementwise update differ by less (measured on seven
executors, and with emulated accelerator arithmetic).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anh_jax.bounds.statistic import Array, Statistic

_ROUNDOFFS = 16
# Devices may flush what is smaller to zero.
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Candidate:
    """A tensor that an honest update may give, from the value `before` it.

    `terms` are the sums of absolute terms of each element where a rule subtracts; they then stand
    for the size of the update, which may cancel.
    """

    value: Array
    before: Array
    terms: Array | None = None


@dataclass(frozen=True)
class Residual:
    """A tensor's residual: over its tolerance (`share`) and in units in the last place (`units`).

    Both are signed and have the tensor's shape.
    """

    name: str
    share: Array
    units: Array

    @property
    def worst(self) -> Statistic:
        """Return check B of this tensor: the largest absolute share."""
        return Statistic(float(np.max(np.abs(self.share), initial=0.0)), self.name)


def nearest_residual(
    name: str, committed: Array, candidates: Sequence[Candidate], *, unit_roundoff: float
) -> Residual:
    """Return the residual to the candidate that is nearest, chosen for each element."""
    first = candidates[0].value
    if (committed.shape, committed.dtype) != (first.shape, first.dtype):
        odd = np.full(first.shape, math.inf)
        return Residual(f"{name}: another shape or dtype", odd, odd)
    nearest = _residual(name, committed, candidates[0], unit_roundoff)
    for candidate in candidates[1:]:
        other = _residual(name, committed, candidate, unit_roundoff)
        closer = np.abs(other.share) < np.abs(nearest.share)
        nearest = Residual(
            name,
            np.where(closer, other.share, nearest.share),
            np.where(closer, other.units, nearest.units),
        )
    return nearest


def _residual(name: str, committed: Array, expected: Candidate, unit_roundoff: float) -> Residual:
    wide = expected.value.astype(np.float64)
    with np.errstate(all="ignore"):
        unit = np.maximum(np.spacing(np.abs(expected.value)).astype(np.float64), _SMALLEST)
        size = expected.terms
        if size is None:
            size = np.abs(wide - expected.before.astype(np.float64))
        tolerance = unit + _ROUNDOFFS * unit_roundoff * size
        distance = committed.astype(np.float64) - wide
        share, units = distance / tolerance, distance / unit
    same = (committed == expected.value) | (np.isnan(committed) & np.isnan(expected.value))
    share = np.where(np.isnan(share), math.inf, share)
    return Residual(name, np.where(same, 0.0, share), np.where(same, 0.0, units))
