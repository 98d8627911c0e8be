"""Statistics accept at most 1, and nothing that is not a number accepts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.acceptance import (
    Statistic,
    check_numbers,
    check_tensors,
    element_ratio,
    largest,
    norm_ratio,
)

CAP = 1e-4
U = 2.0**-24


def tensor(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_norm_just_within_the_cap_accepts_and_just_outside_does_not() -> None:
    reference = tensor(*[1.0] * 100)
    for factor, accepted in ((0.9, True), (1.1, False)):
        committed = (reference * np.float32(1 + factor * CAP)).astype(np.float32)
        found = check_tensors({"w": committed}, {"w": reference}, cap=CAP)
        assert found.accepted is accepted
        assert found.where == "w"


def test_statistic_that_is_not_a_number_does_not_accept() -> None:
    assert not Statistic(math.nan, "w").accepted
    assert not Statistic(math.inf, "w").accepted
    assert Statistic(1.0, "w").accepted


@given(st.permutations([0.0, 0.5, math.nan, 2.0]))
def test_largest_keeps_what_is_not_a_number(values: list[float]) -> None:
    assert math.isnan(largest(Statistic(value, str(value)) for value in values).value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_committed_value_that_is_not_finite_never_accepts(bad: float) -> None:
    reference = tensor(1.0, 2.0, 3.0)
    committed = tensor(1.0, bad, 3.0)
    assert norm_ratio(committed, reference, cap=CAP) == math.inf
    assert element_ratio(committed, [reference], reference, unit_roundoff=U) == math.inf
    numbers = check_numbers({"loss": bad}, {"loss": 1.0}, cap=CAP)
    assert not numbers.accepted


def test_not_finite_in_the_same_place_is_compared_elsewhere() -> None:
    reference = tensor(1.0, math.nan, math.inf)
    assert norm_ratio(tensor(1.0, math.nan, math.inf), reference, cap=CAP) == 0.0
    assert norm_ratio(tensor(1.00001, math.nan, math.inf), reference, cap=CAP) < 1
    assert norm_ratio(tensor(1.1, math.nan, math.inf), reference, cap=CAP) > 1
    assert norm_ratio(tensor(1.0, math.inf, math.nan), reference, cap=CAP) == math.inf
    assert norm_ratio(tensor(1.0, math.nan, -math.inf), reference, cap=CAP) == math.inf


def test_reference_of_zero_passes_by_its_bits_alone() -> None:
    zero = tensor(0.0, 0.0)
    assert norm_ratio(zero.copy(), zero, cap=CAP) == 0.0
    assert norm_ratio(tensor(0.0, -0.0), zero, cap=CAP) == math.inf
    assert norm_ratio(tensor(0.0, 1e-30), zero, cap=CAP) == math.inf


def test_other_shape_dtype_or_path_never_accepts() -> None:
    reference = tensor(1.0, 2.0)
    assert norm_ratio(tensor(1.0), reference, cap=CAP) == math.inf
    assert norm_ratio(reference.astype(np.float64), reference, cap=CAP) == math.inf
    found = check_tensors({"a": reference, "b": reference}, {"a": reference}, cap=CAP)
    assert (found.accepted, found.where) == (False, "b: only on one side")


def test_one_element_may_be_one_last_place_away_and_not_two() -> None:
    expected, before = tensor(0.75), tensor(0.75)
    one = np.nextafter(expected, np.float32(1))
    two = np.nextafter(one, np.float32(1))
    assert element_ratio(one, [expected], before, unit_roundoff=U) <= 1
    assert element_ratio(two, [expected], before, unit_roundoff=U) > 1


def test_large_update_is_allowed_its_share_of_roundoffs() -> None:
    expected, before = tensor(1e-3), tensor(-1.0)
    # 16 u |update| = 9.5e-7 here, far more than a unit in the last place of the result.
    assert element_ratio(expected + tensor(9e-7), [expected], before, unit_roundoff=U) <= 1
    assert element_ratio(expected + tensor(1.1e-6), [expected], before, unit_roundoff=U) > 1


def test_nearest_candidate_decides_each_element() -> None:
    before = tensor(0.0, 0.0)
    candidates = [tensor(1.0, 1.0), tensor(-1.0, -1.0)]
    assert element_ratio(tensor(1.0, -1.0), candidates, before, unit_roundoff=U) == 0.0
    assert element_ratio(tensor(1.0, 0.0), candidates, before, unit_roundoff=U) > 1


@given(st.floats(min_value=-1e6, max_value=1e6, width=32), st.integers(0, 2**31))
def test_equal_tensors_have_statistic_zero(value: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(value, 1.0, 7).astype(np.float32)
    assert norm_ratio(values.copy(), values, cap=CAP) == 0.0
    assert element_ratio(values.copy(), [values], values, unit_roundoff=U) == 0.0
