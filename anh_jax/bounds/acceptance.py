"""The preliminary checks of one step recomputed on another mesh (docs/numerics.md, "Bounded").

Every statistic is a distance over its tolerance, and accepts when it is at most 1. The comparison
is written `statistic <= 1` everywhere: a statistic that is not a number must not accept.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anh_jax.program.tree import Path, leaves_of, path_text

Array = NDArray[Any]

# Fused and separate roundings of one elementwise update differ by less than this many roundoffs
# of the update, beside one unit in the last place of the result (measured on seven executors).
_ROUNDOFFS = 16
# Devices may flush what is smaller to zero.
_SMALLEST = float(np.finfo(np.float32).tiny)


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


def check_tensors(committed: Any, reference: Any, *, cap: float) -> Statistic:
    """Return check A: the largest norm(g - g_ref) / (cap norm(g_ref)) over the tensors of a tree.

    A path that only one of the trees has, or another shape or dtype, gives infinity.
    """
    ours, theirs = host_leaves(reference), host_leaves(committed)
    if ours.keys() != theirs.keys():
        odd = min(ours.keys() ^ theirs.keys())
        return Statistic(math.inf, f"{path_text(odd)}: only on one side")
    return largest(
        Statistic(norm_ratio(theirs[path], ours[path], cap=cap), path_text(path)) for path in ours
    )


def norm_ratio(committed: Array, reference: Array, *, cap: float) -> float:
    """Return norm(g - g_ref) / (cap norm(g_ref)) of one tensor, in float64.

    Where the reference is zero or not finite, the bits decide: 0 where they are equal, else
    infinity.
    """
    if (committed.shape, committed.dtype) != (reference.shape, reference.dtype):
        return math.inf
    if same_bits(committed, reference):
        return 0.0
    finite = np.isfinite(reference)
    # What is not finite must be so in the same place, and of the same kind.
    if not np.array_equal(np.isfinite(committed), finite):
        return math.inf
    if not np.array_equal(committed[~finite], reference[~finite], equal_nan=True):
        return math.inf
    wide = reference[finite].astype(np.float64)
    distance = float(np.linalg.norm(committed[finite].astype(np.float64) - wide))
    scale = cap * float(np.linalg.norm(wide))
    if scale == 0.0:
        return math.inf
    return distance / scale


def check_numbers(
    committed: Mapping[str, float], reference: Mapping[str, float], *, cap: float
) -> Statistic:
    """Return the largest abs(x - x_ref) / (cap abs(x_ref)) of single numbers, by name."""

    def ratio(name: str) -> float:
        value = np.asarray(committed[name], np.float64)
        return norm_ratio(value.reshape(1), np.asarray([reference[name]], np.float64), cap=cap)

    return largest(Statistic(ratio(name), name) for name in reference)


def element_ratio(
    committed: Array, candidates: Sequence[Array], before: Array, *, unit_roundoff: float
) -> float:
    """Return check B of one tensor: the largest abs(x - y) / (1 ulp(y) + 16 u abs(y - before)).

    `candidates` are the values y that an honest update may give; each element takes the nearest.
    """
    with np.errstate(all="ignore"):
        ratios = [_ratios(committed, y, before, unit_roundoff) for y in candidates]
    nearest = np.fmin.reduce(ratios)
    return float(np.max(np.where(np.isnan(nearest), math.inf, nearest), initial=0.0))


def _ratios(committed: Array, expected: Array, before: Array, unit_roundoff: float) -> Array:
    wide = expected.astype(np.float64)
    ulp = np.maximum(np.spacing(np.abs(expected)).astype(np.float64), _SMALLEST)
    update = np.abs(wide - before.astype(np.float64))
    tolerance = ulp + _ROUNDOFFS * unit_roundoff * update
    ratios = np.abs(committed.astype(np.float64) - wide) / tolerance
    same = (committed == expected) | (np.isnan(committed) & np.isnan(expected))
    return np.where(same, 0.0, ratios)


def same_bits(first: Array, second: Array) -> bool:
    """Tell whether two arrays of one shape and dtype hold the same bits (-0.0 is not 0.0)."""
    return first.tobytes() == second.tobytes()


def host_leaves(tree: Any) -> dict[Path, Array]:
    """Return the leaves of a tree as host arrays, by path."""
    return {path: np.asarray(leaf) for path, leaf in leaves_of(tree).items()}
