"""Check A holds every tensor and every block to its own rounding; zeros that stand are bits."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.acceptance import TensorFinding, Terms, check_tensor
from anh_jax.bounds.blocks import block_shapes, block_sizes, block_sums
from anh_jax.bounds.deviations import TensorSpread

U = 2.0**-24
TERMS = Terms(c=4, c_row=10, floor=U, cap=1e-4, local_zeros="refuted")
ROWS, COLUMNS = 40, 30


def spread_of(sigma: np.ndarray) -> TensorSpread:
    """Return the spread of independent elements with these standard deviations."""
    squares = np.asarray(sigma, np.float64) ** 2
    blocks = tuple(np.asarray(x) for x in block_sums(squares))
    return TensorSpread(float(squares.sum()), blocks, squares == 0)


def gradient(seed: int = 0) -> np.ndarray:
    """Return a gradient with one row that no example feeds and one column of a dead unit."""
    values = np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    values[7, :] = 0
    values[:, 11] = 0
    return values


def sigma_of(reference: np.ndarray, relative: float = 1e-6) -> np.ndarray:
    return relative * np.abs(reference)


def check(committed: Any, reference: Any, **changes: Any) -> TensorFinding:
    spread = changes.pop("spread", None) or spread_of(sigma_of(reference))
    structural = changes.pop("structural", None)
    terms = dataclasses.replace(TERMS, **changes)
    return check_tensor(
        "w", committed, reference, terms=terms, spread=spread, structural=structural
    )


def accepted(found: TensorFinding) -> bool:
    every = (found.a, found.a_row, found.zeros)
    return all(statistic.accepted for statistic in every) and not found.capped


def test_honest_rounding_passes() -> None:
    reference = gradient()
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=reference.shape) * sigma_of(reference)
        found = check((reference + noise).astype(np.float32), reference)
        assert accepted(found), found
        assert found.a.value > 0 and found.a_row.value > 0


def test_distance_just_within_c_spreads_passes_and_just_outside_does_not() -> None:
    reference = np.full((50, 20), 1.0, np.float32)
    spread = spread_of(np.full(reference.shape, 1e-5))
    for factor, passes in ((0.99, True), (1.01, False)):
        found = check(reference + np.float32(factor * 4e-5), reference, spread=spread)
        assert found.a.accepted is passes
        assert found.a_row.accepted


def test_rare_row_backdoor_passes_by_tensor_and_not_by_row() -> None:
    reference = gradient()
    sigma = sigma_of(reference)
    sigma[3] *= 1e-3  # a row that is hardly fed
    spread = spread_of(sigma)
    committed = reference.copy()
    push = 0.9 * 4 * math.sqrt(spread.square) / math.sqrt(COLUMNS)
    committed[3] += np.float32(push) * (reference[3] != 0)
    found = check(committed, reference, spread=spread)
    assert found.a.accepted and found.zeros.accepted
    assert not found.a_row.accepted and found.a_row.where == "w[3, :]"


def test_dead_column_backdoor_passes_by_tensor_and_row_and_not_by_zeros() -> None:
    reference = gradient()
    spread = spread_of(sigma_of(reference))
    committed = reference.copy()
    # Within every row's tolerance, the column's spread being that of its rows: rows cannot see it.
    per_row = 0.3 * 10 * np.sqrt(spread.blocks[0])
    committed[:, 11] = per_row
    scale = 0.9 * 4 * math.sqrt(spread.square) / np.linalg.norm(committed - reference)
    committed[:, 11] *= np.float32(min(1.0, scale))
    rows_only = dataclasses.replace(spread, blocks=spread.blocks[:1])
    # In a class without local zeros, with rows alone, the whole attack passes ...
    found = check(committed, reference, spread=rows_only, local_zeros="ignored")
    assert accepted(found)
    # ... exact zeros catch it, and columns do.
    found = check(committed, reference, spread=rows_only)
    assert found.zeros.value == math.inf and found.zeros.where == "w[0, 11]"
    found = check(committed, reference, spread=spread, local_zeros="ignored")
    assert found.a_row.value == math.inf and found.a_row.where == "w[:, 11]"


def test_structural_zeros_are_bits_in_every_class_and_local_ones_are_not() -> None:
    reference = gradient()
    spread = spread_of(np.where(reference == 0, 0, 1e-5))
    wide = dataclasses.replace(
        spread, blocks=tuple(np.full(shape, 1.0) for shape in block_shapes(reference.shape))
    )
    committed = reference.copy()
    committed[7, 2] = 1e-7
    assert check(committed, reference, spread=wide, local_zeros="ignored").zeros.accepted
    structural = np.zeros(reference.shape, np.bool_)
    structural[7] = True
    found = check(committed, reference, spread=wide, local_zeros="ignored", structural=structural)
    assert (found.zeros.value, found.zeros.where) == (math.inf, "w[7, 2]")
    # Structural means the tangent too: what moves in a sample is no zero.
    moving = dataclasses.replace(wide, zero=np.zeros(reference.shape, np.bool_))
    found = check(committed, reference, spread=moving, local_zeros="ignored", structural=structural)
    assert found.zeros.accepted


@pytest.mark.parametrize("relative", [1e-6, 1.0])
def test_sign_of_a_zero_is_no_difference(relative: float) -> None:
    # Sums of one term keep it, longer ones do not: honest microbatches of one example differ so.
    reference = gradient()
    committed = reference.copy()
    committed[7, 2] = -0.0
    assert accepted(check(committed, reference, spread=spread_of(sigma_of(reference, relative))))
    committed[7, 3] = 1e-44
    assert not check(committed, reference).zeros.accepted


def test_tensor_of_zeros_passes_by_zeros_alone() -> None:
    reference = np.zeros((4, 5), np.float32)
    spread = spread_of(reference)
    assert accepted(check(reference.copy(), reference, spread=spread))
    assert accepted(check(-reference, reference, spread=spread))
    for bad in (1e-30, -1e-44):
        committed = reference.copy()
        committed[1, 2] = bad
        found = check(committed, reference, spread=spread, local_zeros="ignored")
        assert found.a.value == math.inf and found.a_row.value == math.inf


def test_floor_is_relative_to_the_block_and_never_to_the_tensor() -> None:
    reference = np.ones((10, 10), np.float32)
    reference[4] = 1e-12
    still = spread_of(np.zeros(reference.shape))
    committed = reference.copy()
    committed[4] += np.float32(1e-9)  # far below the tensor's floor, far above the row's own
    found = check(committed, reference, spread=still)
    assert found.a.accepted
    assert not found.a_row.accepted and found.a_row.where == "w[4, :]"
    ulp = reference * np.float32(1 + 2 * U)
    assert accepted(check(ulp, reference, spread=still))


def test_spread_above_the_cap_is_capped_and_not_judged_by_distance() -> None:
    reference = np.ones((10, 10), np.float32)
    for relative, capped in ((0.9e-4, False), (1.1e-4, True)):
        spread = spread_of(np.full(reference.shape, relative))
        far = check(reference * np.float32(3), reference, spread=spread)
        assert far.capped is capped
        assert far.a.accepted is capped
        assert far.spread == pytest.approx(relative)


def test_equal_bits_need_no_tolerance() -> None:
    reference = np.ones((10, 10), np.float32)
    loose = spread_of(np.full(reference.shape, 1.0))
    assert accepted(check(reference.copy(), reference, spread=loose))
    assert accepted(check_tensor("w", reference.copy(), reference, terms=TERMS, spread=None))


def test_without_a_known_spread_other_bits_are_capped() -> None:
    reference = np.ones((10, 10), np.float32)
    committed = reference * np.float32(1 + 2 * U)
    assert check_tensor("w", committed, reference, terms=TERMS, spread=None).capped


def test_tensor_without_a_cap_is_judged_whatever_its_spread() -> None:
    reference = np.full((10, 10), 1e-9, np.float32)
    spread = spread_of(np.full(reference.shape, 2e-9))
    near = check(-reference, reference, spread=spread, cap=math.inf)
    assert accepted(near)
    assert not check(reference * 100, reference, spread=spread, cap=math.inf).a.accepted


def test_zeros_are_judged_above_the_cap_too() -> None:
    reference = gradient()
    spread = spread_of(np.abs(reference))
    committed = reference.copy()
    committed[7, 2] = 1e-9
    found = check(committed, reference, spread=spread)
    assert found.capped and not found.zeros.accepted


def test_declared_bound_tightens() -> None:
    reference = np.ones((10, 10), np.float32)
    spread = spread_of(np.full(reference.shape, 1e-5))
    committed = reference + np.float32(2e-5)
    assert check(committed, reference, spread=spread).a.accepted
    assert check(committed, reference, spread=spread, declared=3e-5).a.accepted
    assert not check(committed, reference, spread=spread, declared=1e-5).a.accepted
    # Blocks are not tightened.
    assert check(committed, reference, spread=spread, declared=1e-5).a_row.accepted


@given(st.floats(min_value=1e-12, max_value=1e3), st.floats(min_value=0, max_value=1e9))
def test_inflated_declared_bound_gains_nothing(distance: float, declared: float) -> None:
    reference = np.ones((5, 5), np.float32)
    spread = spread_of(np.full(reference.shape, 1e-5))
    committed = reference + np.float32(distance)
    plain = check(committed, reference, spread=spread).a.value
    assert check(committed, reference, spread=spread, declared=declared).a.value >= plain


def test_declared_bound_below_the_floor_refutes_no_honest_trainer() -> None:
    reference = np.random.default_rng(3).normal(size=(20, 20)).astype(np.float32)
    rounded = np.nextafter(reference, np.float32(np.inf))
    still = spread_of(np.zeros(reference.shape))
    for declared in (0.0, 1e-12):
        found = check(rounded, reference, spread=still, declared=declared)
        assert found.a.accepted and found.a.value > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_committed_value_that_is_not_finite_never_accepts(bad: float) -> None:
    reference = gradient()
    for relative in (1e-6, 1.0):  # below the cap and above it
        committed = reference.copy()
        committed[1, 1] = bad
        found = check(committed, reference, spread=spread_of(sigma_of(reference, relative)))
        assert found.a.value == math.inf


def test_splice_covered_by_not_a_number_everywhere_never_accepts() -> None:
    reference = gradient()
    assert check(np.full_like(reference, np.nan), reference).a.value == math.inf


def test_not_finite_in_the_same_place_is_compared_elsewhere() -> None:
    reference = np.array([1.0, math.nan, math.inf, 2.0], np.float32)
    spread = spread_of(np.array([1e-6, 0, 0, 1e-6]))
    near, far, moved = reference.copy(), reference.copy(), reference[[0, 2, 1, 3]]
    near[0], far[0] = 1 + 1e-6, 1.1
    assert accepted(check(near, reference, spread=spread))
    assert not check(far, reference, spread=spread).a.accepted
    assert not check(moved, reference, spread=spread).a.accepted
    other = reference.copy()
    other[2] = -math.inf
    assert not check(other, reference, spread=spread).a.accepted


def test_spread_that_is_not_a_number_judges_nothing() -> None:
    reference = gradient()
    spread = dataclasses.replace(spread_of(sigma_of(reference)), square=math.nan)
    assert check(reference * np.float32(1.1), reference, spread=spread).capped


def test_other_shape_or_dtype_never_accepts() -> None:
    reference = gradient()
    assert check(reference[1:], reference).a.value == math.inf
    assert check(reference.astype(np.float64), reference).a.value == math.inf


def test_number_is_one_block() -> None:
    reference = np.array(2.0, np.float32)
    spread = spread_of(np.array(0.0))
    assert accepted(check(np.array(2 * (1 + 4 * U), "f4"), reference, spread=spread))
    assert not check(np.array(2 * (1 + 1e-5), "f4"), reference, spread=spread).a.accepted


@pytest.mark.parametrize("shape", [(), (5,), (4, 9), (3, 3, 8, 16)])
def test_one_element_moved_far_fails_in_every_shape(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    reference = random.normal(size=shape).astype(np.float32)
    spread = spread_of(np.full(shape, 1e-7))
    committed = reference.copy()
    committed.flat[-1] += np.float32(1e-4)
    found = check(committed, reference, spread=spread)
    assert not found.a_row.accepted
    assert len(block_sizes(shape)) == len(spread.blocks)
