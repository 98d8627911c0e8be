"""Predictions: the formulas, and that no number looks surer than what it rests on."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.cost import TreeCost
from anh_jax.digest.forecast import Basis, Figure, Machine, Workload, forecast
from anh_jax.digest.policy import EVERY

bases = st.sampled_from(Basis)


def cost(size: int) -> TreeCost:
    return TreeCost(tensors=10, size=size, tiles=1, hashes=1, chip_size=size // 4, gathered=32)


WORK = Workload(
    flops=8e12, state=cost(4 * 10**9), gradient=cost(10**9), chips=4, longest=1000, exact=True
)


def figure(value: float, basis: Basis = Basis.MEASURED) -> Figure:
    return Figure(value, basis, "a test")


MACHINE = Machine(peak=figure(1e13), rate=figure(1e11), per_tensor=figure(1e-4), row=figure(2e-5))


def test_seconds_follow_from_work_and_rates() -> None:
    made = forecast(WORK, MACHINE, figure(0.5))
    assert made.step.value == pytest.approx(8e12 / (4 * 1e13 * 0.5))
    assert made.state.value == pytest.approx(1e9 / 1e11 + 10 * 1e-4)
    assert made.gradient.value == pytest.approx(2.5e8 / 1e11 + 10 * 1e-4)
    fixed = made.gradient.value + 2e-5
    assert made.share_at(4).value == pytest.approx((made.state.value / 4 + fixed) / 0.4)


def test_policy_is_the_one_that_a_run_would_choose() -> None:
    made = forecast(WORK, MACHINE, figure(0.5))
    assert made.every in EVERY and made.share_at(made.every).value < 0.01
    assert made.share_at(EVERY[EVERY.index(made.every) - 1]).value >= 0.01
    bounded = dataclasses.replace(WORK, exact=False)
    assert forecast(bounded, MACHINE, figure(0.5)).every == 1
    short = dataclasses.replace(WORK, longest=3)
    assert forecast(short, MACHINE, figure(0.5)).every == 1


def test_rows_that_take_long_to_sign_leave_less_for_states() -> None:
    slow = dataclasses.replace(MACHINE, row=figure(3e-4))
    usual, dearer = (forecast(WORK, machine, figure(0.5)) for machine in (MACHINE, slow))
    assert dearer.every > usual.every
    assert dearer.share_at(8).value == pytest.approx(usual.share_at(8).value + 2.8e-4 / 0.4)


@given(peak=bases, rate=bases, per_tensor=bases, row=bases, share=bases)
def test_every_result_has_the_weakest_basis_of_what_it_rests_on(
    peak: Basis, rate: Basis, per_tensor: Basis, row: Basis, share: Basis
) -> None:
    machine = Machine(
        peak=figure(1e13, peak),
        rate=figure(1e11, rate),
        per_tensor=figure(1e-4, per_tensor),
        row=figure(2e-5, row),
    )
    made = forecast(WORK, machine, figure(0.5, share))
    assert made.step.basis == max(peak, share)
    assert made.state.basis == made.gradient.basis == max(rate, per_tensor)
    assert made.row.basis == row
    assert made.share_at(2).basis == max(peak, rate, per_tensor, row, share)


def test_assumed_is_weaker_than_roofline_and_roofline_than_measured() -> None:
    assert Basis.COUNTED < Basis.MEASURED < Basis.ROOFLINE < Basis.ASSUMED
    assert [basis.label for basis in Basis] == ["counted", "measured", "roofline", "assumed"]
