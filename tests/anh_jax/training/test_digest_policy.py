"""One policy for all workers, decided once from what each of them measured."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.policy import choose_every
from anh_jax.errors import AnhError
from anh_jax.experiment import load_experiment
from anh_jax.training.digest_policy import decide, every_of, setting_of
from anh_jax.training.seams import WarmUp

DIGITS = Path(__file__).resolve().parents[3] / "configs" / "digits.yaml"
times = st.floats(1e-6, 10)


@st.composite
def warm_ups(draw: st.DrawFn) -> WarmUp:
    step, state, gradient, signature = (draw(times) for _ in range(4))
    return WarmUp(
        step_seconds=step,
        state_seconds=state,
        gradient_seconds=gradient,
        signature_seconds=signature,
        repeats=True,
    )


def warm_up(state: float, *, signature: float = 0.0, repeats: bool = True) -> WarmUp:
    return WarmUp(
        step_seconds=1.0,
        state_seconds=state,
        gradient_seconds=0.0,
        signature_seconds=signature,
        repeats=repeats,
    )


def alone(measured: WarmUp, checkpoint_every: int) -> int:
    return choose_every(
        measured.step_seconds,
        measured.state_seconds,
        measured.gradient_seconds + measured.signature_seconds,
        longest=checkpoint_every,
        exact=True,
    )


@given(measured=st.lists(warm_ups(), min_size=1, max_size=5), checkpoint_every=st.integers(1, 2000))
def test_the_worker_that_needs_the_longest_interval_decides(
    measured: list[WarmUp], checkpoint_every: int
) -> None:
    decision = decide("auto", measured, checkpoint_every=checkpoint_every)
    wanted = [alone(each, checkpoint_every) for each in measured]
    assert every_of(decision.policy) == max(wanted)
    assert checkpoint_every % max(wanted) == 0
    assert f"(rank {wanted.index(max(wanted))})" in decision.why


def test_signatures_count_as_what_every_row_costs() -> None:
    # A state of 0.5 % fits into 1 %; beside a signature of 0.6 % only every second one does.
    assert decide("auto", [warm_up(0.005)], checkpoint_every=100).policy == "every 1"
    dear = [warm_up(0.005, signature=0.006)]
    assert decide("auto", dear, checkpoint_every=100).policy == "every 2"


def test_gradients_that_do_not_repeat_anywhere_need_every_state() -> None:
    measured = [warm_up(0.5), warm_up(0.5, repeats=False)]
    decision = decide("auto", measured, checkpoint_every=100)
    assert decision.policy == "every 1"
    assert decision.why.endswith("gradients did not repeat")


def test_the_reason_names_what_was_measured() -> None:
    decision = decide("auto", [warm_up(0.04, signature=0.001)], checkpoint_every=100)
    assert decision.facts == {
        "digestPolicy": "auto: every 5; step 1e+03 ms, state digest 40 ms, gradient digest 0 ms, "
        "signature 1 ms (rank 0)"
    }


def test_a_policy_of_the_config_stands_as_it_is_without_a_reason() -> None:
    decision = decide("every 7", [None, None], checkpoint_every=100)
    assert decision.policy == "every 7"
    assert decision.facts == {}


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        (("attest.digest=auto",), "auto"),
        (("attest.digest=auto", "plan.kind=native"), "every 1"),
        (("attest.digest=every 3", "plan.kind=native"), "every 3"),
    ],
)
def test_what_is_judged_within_bounds_is_not_measured(
    changes: tuple[str, ...], setting: str
) -> None:
    assert setting_of(load_experiment(DIGITS, changes)) == setting


@pytest.mark.parametrize("measured", [[], [None], [warm_up(0.1), None]])
def test_auto_without_every_workers_measurement_is_refused(measured: list[WarmUp | None]) -> None:
    with pytest.raises(AnhError, match="a worker measured nothing"):
        decide("auto", measured, checkpoint_every=100)
