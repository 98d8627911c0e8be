"""Check B of one tensor: within a unit in the last place and 16 roundoffs of the update."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.bounds.residual import Candidate, nearest_residual

U = 2.0**-24


def tensor(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def worst(committed: np.ndarray, *candidates: Candidate) -> float:
    return nearest_residual("w", committed, candidates, unit_roundoff=U).worst.value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_committed_value_that_is_not_finite_never_accepts(bad: float) -> None:
    reference = tensor(1.0, 2.0, 3.0)
    assert worst(tensor(1.0, bad, 3.0), Candidate(reference, reference)) == math.inf


def test_not_a_number_in_the_same_place_is_the_same() -> None:
    reference = tensor(1.0, math.nan)
    assert worst(reference.copy(), Candidate(reference, tensor(0.0, 0.0))) == 0.0


def test_one_element_may_be_one_last_place_away_and_not_two() -> None:
    expected = tensor(0.75)
    one = np.nextafter(expected, np.float32(1))
    two = np.nextafter(one, np.float32(1))
    assert worst(one, Candidate(expected, expected)) <= 1
    assert worst(two, Candidate(expected, expected)) > 1


def test_large_update_is_allowed_its_share_of_roundoffs() -> None:
    expected, before = tensor(1e-3), tensor(-1.0)
    # 16 u |update| = 9.5e-7 here, far more than a unit in the last place of the result.
    assert worst(expected + tensor(9e-7), Candidate(expected, before)) <= 1
    assert worst(expected + tensor(1.1e-6), Candidate(expected, before)) > 1


def test_where_a_rule_subtracts_the_terms_count_and_not_their_difference() -> None:
    expected, before = tensor(1e-3), tensor(1e-3)
    moved = expected + tensor(9e-7)
    assert worst(moved, Candidate(expected, before)) > 1
    assert worst(moved, Candidate(expected, before, terms=tensor(1.0))) <= 1


def test_nearest_candidate_decides_each_element() -> None:
    before = tensor(0.0, 0.0)
    candidates = [Candidate(tensor(1.0, 1.0), before), Candidate(tensor(-1.0, -1.0), before)]
    assert worst(tensor(1.0, -1.0), *candidates) == 0.0
    assert worst(tensor(1.0, 0.0), *candidates) > 1


def test_another_shape_or_dtype_never_accepts() -> None:
    reference = tensor(1.0, 2.0)
    assert worst(tensor(1.0), Candidate(reference, reference)) == math.inf
    assert worst(reference.astype(np.float64), Candidate(reference, reference)) == math.inf


def test_residual_has_a_sign_and_counts_last_places() -> None:
    expected = tensor(1.0, 1.0)
    committed = tensor(1 + 2**-23, 1 - 2**-23)
    found = nearest_residual("w", committed, [Candidate(expected, expected)], unit_roundoff=U)
    assert found.units.tolist() == [1.0, -1.0]
    assert found.share.tolist() == [1.0, -1.0]


@given(st.floats(min_value=-1e6, max_value=1e6, width=32), st.integers(0, 2**31))
def test_equal_tensors_have_statistic_zero(value: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(value, 1.0, 7).astype(np.float32)
    assert worst(values.copy(), Candidate(values, values)) == 0.0
