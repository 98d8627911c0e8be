"""Walk tests: whether what remains after check B is rounding, or goes somewhere.

Each element may honestly differ by a unit in the last place. A trainer that spends this allowance
in one direction at every step walks away in plain sight of check B. Two tests see it: at one step
honest residuals stay far below their tolerances on average, and over several steps they point in
unrelated directions. (A random +-1 projection normalised by the residual itself has mean zero and
variance one for every residual, honest or not: it detects nothing.)
"""

import math

import numpy as np

from anh_jax.bounds.statistic import Array, Statistic

# Measured: honest parameters stay below 0.23, a walk of one unit everywhere is above 0.88.
LARGEST_RMS = 0.5
# A moment is a sum of two products. Multiply-add fused or not, it differs by a unit in the last
# place with probability 1/4 (the mean distance of a product from its rounding), whose root mean
# square is 0.5 already: executors without fused instructions came to 0.7 in small tensors.
_SLOT_SHARE = 0.3
LARGEST_COSINE = 0.05
# Fewer elements than this say nothing about an average.
SMALLEST_TENSOR = 32
# Residuals near zero parameters are many units long, and honest.
_CLIP_UNITS = 2.0
# How many standard deviations of unrelated residuals a cosine must exceed to count, for models so
# small that two of them are not close to orthogonal.
_DEVIATIONS = 5.0


def walk_of_tensor(name: str, share: Array) -> Statistic | None:
    """Return rms(distance / tolerance) of parameters over 0.5; None below 32 elements."""
    return _over(name, share, LARGEST_RMS)


def walk_of_slot(name: str, share: Array) -> Statistic | None:
    """Return the same of an optimizer's slot over what fused and separate rounding differ by.

    That is a share of 0.3 of its elements, and five deviations of such a share.
    """
    if not share.size:
        return None
    deviation = math.sqrt(_SLOT_SHARE * (1 - _SLOT_SHARE) / share.size)
    return _over(name, share, math.sqrt(_SLOT_SHARE + _DEVIATIONS * deviation))


def _over(name: str, share: Array, limit: float) -> Statistic | None:
    if share.size < SMALLEST_TENSOR:
        return None
    rms = math.sqrt(float(np.mean(np.square(share, dtype=np.float64))))
    return Statistic(rms / limit, name)


class PairwiseCosine:
    """The mean cosine between the residuals of all pairs of steps, kept as running sums.

    With unit vectors x_i the sum over pairs of x_i . x_j is (|sum x_i|^2 - K) / 2, so K residuals
    take the memory of two.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum: dict[str, Array] = {}
        self._squares: dict[str, Array] = {}
        self._fourths = 0.0

    @property
    def steps(self) -> int:
        """Return how many steps left a residual at all."""
        return self._count

    def add(self, residual: dict[str, Array]) -> None:
        """Add a step's residuals in units in the last place, by tensor, each time the same ones.

        A step without any residual has no direction and counts for nothing.
        """
        clipped = {
            name: np.clip(units, -_CLIP_UNITS, _CLIP_UNITS).astype(np.float32)
            for name, units in residual.items()
        }
        square = sum(float(np.sum(np.square(x, dtype=np.float64))) for x in clipped.values())
        if not square > 0:
            return
        scale = np.float32(1 / math.sqrt(square))
        self._count += 1
        for name, units in clipped.items():
            unit = units * scale
            squares = unit * unit
            self._fourths += float(np.sum(np.square(squares, dtype=np.float64)))
            if name in self._sum:
                self._sum[name] += unit
                self._squares[name] += squares
            else:
                self._sum[name], self._squares[name] = unit, squares

    def mean(self) -> float:
        """Return the mean cosine over all pairs; 0 where there is no pair."""
        if self._count < 2:  # noqa: PLR2004
            return 0.0
        return (_square(self._sum) - self._count) / (self._count * (self._count - 1))

    def deviation(self) -> float:
        """Return the standard deviation of `mean` if every element's sign were a coin's."""
        if self._count < 2:  # noqa: PLR2004
            return 0.0
        pairs = self._count * (self._count - 1) / 2
        return math.sqrt(max(0.0, (_square(self._squares) - self._fourths) / 2)) / pairs

    def allowed(self) -> float:
        """Return what unrelated residuals may show: 0.05, or 5 deviations.

        From 1 on nothing can be seen: residuals of so few elements agree by chance.
        """
        return max(LARGEST_COSINE, _DEVIATIONS * self.deviation())

    def statistic(self) -> Statistic:
        """Return the mean cosine over what is allowed."""
        return Statistic(self.mean() / self.allowed(), f"{self._count} steps")


def _square(tensors: dict[str, Array]) -> float:
    return sum(float(np.sum(np.square(x, dtype=np.float64))) for x in tensors.values())
