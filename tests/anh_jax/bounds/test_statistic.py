"""Statistics accept at most 1, and nothing that is not a number accepts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.statistic import Statistic, differing_bits, largest, ratios


def test_statistic_that_is_not_a_number_does_not_accept() -> None:
    assert not Statistic(math.nan, "w").accepted
    assert not Statistic(math.inf, "w").accepted
    assert Statistic(1.0, "w").accepted


@given(st.permutations([0.0, 0.5, math.nan, 2.0]))
def test_largest_keeps_what_is_not_a_number(values: list[float]) -> None:
    assert math.isnan(largest(Statistic(value, str(value)) for value in values).value)


def test_nothing_over_nothing_passes_on_equal_bits_alone() -> None:
    zero = np.zeros(2)
    assert ratios(zero, zero, np.array([False, True])).tolist() == [0.0, math.inf]
    assert ratios(np.ones(1), np.zeros(1), np.array([True])).tolist() == [math.inf]


def test_ratio_keeps_what_is_not_a_number() -> None:
    assert math.isnan(ratios(np.array([1.0]), np.array([math.nan]), np.array([True]))[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint32, np.bool_])
def test_bits_are_compared_element_by_element(dtype: type) -> None:
    first = np.array([[1, 0], [0, 1]], dtype)
    second = np.array([[1, 1], [0, 1]], dtype)
    assert differing_bits(first, second).tolist() == [[False, True], [False, False]]
    assert differing_bits(first.T, second.T).tolist() == [[False, False], [True, False]]


def test_signs_of_zero_are_different_bits() -> None:
    assert differing_bits(np.array(0.0, "f4"), np.array(-0.0, "f4"))
