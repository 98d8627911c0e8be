"""Limits are exact, and numbers that JSON cannot hold are text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.redteam.attack import Trial, weakest
from anh_jax.redteam.table import clopper_pearson, cumulative, json_number, upper_limit


def test_limits_are_those_of_the_tables() -> None:
    # 0 of 300: 1 - 0.05^(1/300); 3 of 10 two-sided (Clopper and Pearson).
    assert upper_limit(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)
    limits = clopper_pearson(3, 10)
    assert (limits.low, limits.high) == pytest.approx((0.0667395, 0.6524529), abs=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_hold_the_rate_and_leave_the_tails(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    limits = clopper_pearson(successes, n)
    assert limits.low <= successes / n <= limits.high
    if successes < n:
        assert cumulative(successes, n, limits.high) == pytest.approx(0.025, rel=1e-6)
    if successes:
        assert 1 - cumulative(successes - 1, n, limits.low) == pytest.approx(0.025, rel=1e-6)


def test_nothing_tried_says_nothing() -> None:
    assert (clopper_pearson(0, 0).low, clopper_pearson(0, 0).high) == (0.0, 1.0)
    assert upper_limit(0, 0) == 1.0


def test_margin_is_the_one_nearest_to_the_other_side() -> None:
    seen = [Trial(True, 7.0, ""), Trial(True, 3.0, ""), Trial(True, None, "")]
    assert weakest(seen) == 3.0
    assert weakest([*seen, Trial(False, 0.4, ""), Trial(False, 0.9, "")]) == 0.9
    assert weakest([Trial(True, None, "")]) is None
    assert weakest([Trial(True, math.nan, "")]) == math.inf


def test_what_is_not_finite_is_text_in_json() -> None:
    assert [json_number(x) for x in (1.5, None, math.inf, -math.inf, math.nan)] == [
        1.5, None, "inf", "-inf", "nan",
    ]  # fmt: skip
