"""Check A and exact zeros: a committed gradient against the reference, tensor by tensor.

The tolerance is the auditor's own estimate of rounding at this state and batch (`spread`), times
the contract's constants: c for a whole tensor, c_row for each block (`bounds/blocks.py`). Elements
that are zero whatever rounds must be zero. See docs/numerics.md, "Bounded".
"""

import math
from dataclasses import dataclass

import numpy as np

from anh_jax.bounds.blocks import block_name, block_sums
from anh_jax.bounds.deviations import TensorSpread
from anh_jax.bounds.statistic import Array, Statistic, differing_bits, largest, ratios
from attest.numerics_class import LocalZeros


@dataclass(frozen=True)
class Terms:
    """By which numbers a tensor is judged.

    Attributes:
        c, c_row: tolerances in spreads, per tensor and per block.
        floor: smallest spread over the reference's norm, of a block as of the tensor.
        cap: largest spread over the reference's norm by which the tensor can be judged at all;
            infinity for none.
        local_zeros: whether elements that only here and now do not move must be bit-equal.
        declared: the trainer's own bound on the tensor's distance over the reference's norm. It
            tightens only, down to what `floor` gives; None for none.
    """

    c: float
    c_row: float
    floor: float
    cap: float
    local_zeros: LocalZeros
    declared: float | None = None


@dataclass(frozen=True)
class TensorFinding:
    """What is found of one tensor.

    `a` per tensor, `a_row` the worst block, `zeros` 0 or infinity. `capped` says that rounding is
    too large here for the tensor to be judged, so neither `a` nor `a_row` weighs distances;
    `spread` is over the reference's norm.
    """

    a: Statistic
    a_row: Statistic
    zeros: Statistic
    spread: float
    capped: bool


def check_tensor(
    name: str,
    committed: Array,
    reference: Array,
    *,
    terms: Terms,
    spread: TensorSpread | None,
    structural: Array | None = None,
) -> TensorFinding:
    """Judge one tensor by `terms`.

    Where no spread is known (None) only equal bits count, and the tensor is capped otherwise.
    `structural` marks the elements that stayed zero at other parameters too.
    """
    none = Statistic(0.0, name)
    if (committed.shape, committed.dtype) != (reference.shape, reference.dtype):
        bad = Statistic(math.inf, f"{name}: another shape or dtype")
        return TensorFinding(bad, none, none, 0.0, capped=False)
    differs = _unequal(committed, reference)
    if not differs.any():
        return TensorFinding(none, none, none, 0.0, capped=False)
    zeros = none
    if spread is not None:
        zeros = _zeros(name, reference, differs, _fixed(spread, terms, structural))
    finite = _finite(committed, reference)
    if finite is None:
        bad = Statistic(math.inf, f"{name}: not finite in another place")
        return TensorFinding(bad, none, zeros, math.inf, capped=False)
    ours = np.where(finite, reference, 0).astype(np.float64)
    distance = np.where(finite, committed, 0).astype(np.float64) - ours
    relative = _relative(spread, ours)
    if spread is None or not relative <= terms.cap:
        return TensorFinding(none, none, zeros, relative, capped=True)
    return TensorFinding(
        _whole(name, distance, ours, spread, terms),
        _blocks(name, distance, ours, spread, terms, differs),
        zeros,
        relative,
        capped=False,
    )


def _unequal(committed: Array, reference: Array) -> Array:
    """Return where bits differ, but for the sign of a zero.

    A sum of one term is that term: a dead unit's gradient is -0.0 in microbatches of one example
    and 0.0 in larger ones (measured). No update tells them apart.
    """
    return differing_bits(committed, reference) & ~((committed == 0) & (reference == 0))


def _fixed(spread: TensorSpread, terms: Terms, structural: Array | None) -> Array:
    """Return which elements may not differ in any bit where the reference is zero."""
    if terms.local_zeros == "refuted":
        return spread.zero
    if structural is None:
        return np.zeros_like(spread.zero)
    return spread.zero & structural


def _zeros(name: str, reference: Array, differs: Array, fixed: Array) -> Statistic:
    broken = differs & fixed & (reference == 0)
    if not broken.any():
        return Statistic(0.0, name)
    place = np.unravel_index(int(broken.argmax()), broken.shape)
    return Statistic(math.inf, f"{name}[{', '.join(map(str, place))}]")


def _finite(committed: Array, reference: Array) -> Array | None:
    """Return where both are finite; None where one is not and the other is or is of another kind.

    Minus infinity is another kind than infinity.
    """
    finite = np.isfinite(reference)
    if not np.array_equal(np.isfinite(committed), finite):
        return None
    if not np.array_equal(committed[~finite], reference[~finite], equal_nan=True):
        return None
    return finite


def _relative(spread: TensorSpread | None, ours: Array) -> float:
    if spread is None:
        return math.inf
    if spread.square == 0:
        return 0.0
    norm = float(np.linalg.norm(ours))
    return math.sqrt(spread.square) / norm if norm else math.inf


def _whole(
    name: str, distance: Array, ours: Array, spread: TensorSpread, terms: Terms
) -> Statistic:
    norm = float(np.linalg.norm(ours))
    tolerance = terms.c * max(math.sqrt(spread.square), terms.floor * norm)
    if terms.declared is not None:
        tolerance = min(tolerance, max(terms.declared, terms.c * terms.floor) * norm)
    moved = float(np.linalg.norm(distance))
    ratio = ratios(np.array(moved), np.array(tolerance), np.array(True))
    return Statistic(float(ratio), name)


def _blocks(
    name: str, distance: Array, ours: Array, spread: TensorSpread, terms: Terms, differs: Array
) -> Statistic:
    """Return the worst block; its floor is relative to the block itself, never to the tensor."""
    moved, norms = block_sums(distance**2), block_sums(ours**2)
    changed = block_sums(differs)
    found: list[Statistic] = []
    for family, square in enumerate(spread.blocks):
        size = np.maximum(np.sqrt(square), terms.floor * np.sqrt(norms[family]))
        ratio = ratios(np.sqrt(moved[family]), terms.c_row * size, changed[family] > 0)
        worst = int(np.argmax(ratio)) if ratio.size else 0
        if ratio.size:
            where = f"{name}{block_name(ours.shape, family, worst)}"
            found.append(Statistic(float(np.ravel(ratio)[worst]), where))
    return largest(found)
