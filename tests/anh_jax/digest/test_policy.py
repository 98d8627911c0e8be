"""The choice of `every N`: cheap enough, no longer than needed, and the same for everybody."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anh_jax.digest.policy import BUDGET, EVERY, choose_every, digest_share
from anh_jax.errors import AnhError

seconds = st.floats(1e-9, 1e4)
costs = st.just(0.0) | seconds
longest = st.integers(1, 10_000) | st.sampled_from([100, 200, 250, 1000])


def share(times: tuple[float, float, float], every: int) -> float:
    return digest_share(*times, every=every)


@given(times=st.tuples(seconds, costs, costs), longest=longest)
def test_choice_is_the_first_entry_below_the_budget(
    times: tuple[float, float, float], longest: int
) -> None:
    fitting = [every for every in EVERY if longest % every == 0 and share(times, every) < BUDGET]
    assume(fitting)
    assert choose_every(*times, longest=longest, exact=True) == fitting[0]


@given(times=st.tuples(seconds, costs, costs), longest=longest)
def test_gradients_over_budget_bound_the_interval_by_a_tenth_of_theirs(
    times: tuple[float, float, float], longest: int
) -> None:
    allowed = [every for every in EVERY if longest % every == 0]
    assume(all(share(times, every) >= BUDGET for every in allowed))
    _, state, gradient = times
    chosen = choose_every(*times, longest=longest, exact=True)
    assert chosen in allowed
    if chosen != allowed[-1]:
        assert 10 * state < chosen * gradient
    assert all(10 * state >= every * gradient for every in allowed if every < chosen)


@given(times=st.tuples(seconds, costs, costs), longest=longest)
def test_steps_judged_within_bounds_need_every_state(
    times: tuple[float, float, float], longest: int
) -> None:
    assert choose_every(*times, longest=longest, exact=False) == 1


@given(times=st.tuples(seconds, costs, costs), longest=longest, factor=st.sampled_from([2.0, 8.0]))
def test_dearer_states_are_never_digested_more_often(
    times: tuple[float, float, float], longest: int, factor: float
) -> None:
    step, state, gradient = times
    chosen = choose_every(*times, longest=longest, exact=True)
    assert choose_every(step, factor * state, gradient, longest=longest, exact=True) >= chosen


@given(times=st.tuples(seconds, costs, costs), power=st.integers(-8, 8))
def test_only_ratios_of_times_count(times: tuple[float, float, float], power: int) -> None:
    scaled = [math.ldexp(time, power) for time in times]
    chosen = choose_every(*times, longest=1000, exact=True)
    assert choose_every(*scaled, longest=1000, exact=True) == chosen


@pytest.mark.parametrize(
    ("state", "gradient", "every"),
    [
        (0.0, 0.0, 1),
        (0.009, 0.0, 1),
        (0.010, 0.0, 2),
        (0.060, 0.002, 10),
        (0.006, 0.0041, 2),
        (9.0, 0.0, 1000),
        (0.3, 0.02, 200),
        (99.0, 0.0, 1000),
    ],
)
def test_documented_choices(state: float, gradient: float, every: int) -> None:
    assert choose_every(1.0, state, gradient, longest=10_000, exact=True) == every


def test_share_is_gradient_at_every_step_and_state_at_every_nth() -> None:
    assert digest_share(2.0, 1.0, 0.5, every=4) == pytest.approx(0.375)


@pytest.mark.parametrize(
    "times",
    [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0, -1e-9), (math.inf, 1, 1)],
)
@pytest.mark.parametrize("exact", [True, False])
def test_what_is_no_duration_is_refused(times: tuple[float, float, float], exact: bool) -> None:
    with pytest.raises(AnhError, match="no durations"):
        choose_every(*times, longest=10, exact=exact)


@pytest.mark.parametrize(("longest", "every"), [(100, 100), (250, 50), (7, 1), (64, 2), (300, 100)])
def test_interval_divides_that_of_the_checkpoints(longest: int, every: int) -> None:
    assert choose_every(1.0, 0.9, 0.0, longest=longest, exact=True) == every


@pytest.mark.parametrize("longest", [0, -1])
def test_interval_below_one_step_is_refused(longest: int) -> None:
    with pytest.raises(AnhError, match="at least 1"):
        choose_every(1.0, 1.0, 1.0, longest=longest, exact=True)
