import math

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.errors import ProgramError
from anh_jax.experiment_optimizers import Schedule
from anh_jax.training.constants import (
    ConstantsTable,
    constants_table,
    learning_rate,
    moment_correction,
)


def rates(schedule, steps, peak=0.5):
    return constants_table({"rate": learning_rate(peak, schedule, steps)}, steps).values[:, 0]


def test_cosine_decay_is_that_of_optax():
    schedule = Schedule(kind="cosine", final_fraction=0.1)
    expected = optax.cosine_decay_schedule(0.5, 40, alpha=0.1)
    assert np.allclose(rates(schedule, 40), [expected(step) for step in range(40)], rtol=1e-6)


def test_linear_decay_is_that_of_optax():
    schedule = Schedule(kind="linear", final_fraction=0.2)
    expected = optax.linear_schedule(0.5, 0.1, 40)
    assert np.allclose(rates(schedule, 40), [expected(step) for step in range(40)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_warm_up_rises_to_the_largest_rate_and_no_step_is_wasted(kind):
    found = rates(Schedule(kind=kind, warmup_steps=10), 50)
    assert np.allclose(found[:10], 0.5 * np.arange(1, 11) / 10)
    assert found[10] == 0.5
    assert found.max() == 0.5
    assert (found > 0).all()
    assert np.all(np.diff(found[10:]) <= 0)


def test_warm_up_may_fill_the_whole_run():
    assert np.allclose(rates(Schedule(warmup_steps=4), 4), [0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.0, 1 - 1e-9])
def test_moment_corrections_are_exact_to_the_last_bit_of_float32(decay):
    from fractions import Fraction

    table = constants_table({"c": moment_correction(decay)}, 30)
    for step in range(1, 31):
        exact = 1 - Fraction(decay) ** step
        assert table.values[step - 1, 0] == np.float32(float(exact))


def test_tables_come_back_from_their_bytes():
    columns = {"a": lambda step: step, "b": lambda step: np.sqrt(step)}
    table = constants_table(columns, 7)
    again = ConstantsTable.from_bytes(table.to_bytes())
    assert again.names == ("a", "b") and again.values.dtype == np.float32
    assert again.values.tobytes() == table.values.tobytes()
    assert again.digest == table.digest
    assert table.digest != constants_table({"a": columns["b"], "b": columns["a"]}, 7).digest


@given(st.binary(max_size=80))
def test_bytes_that_are_no_table_are_refused(data):
    with pytest.raises(ProgramError, match="constants table"):
        ConstantsTable.from_bytes(data)


def test_a_shortened_table_is_refused():
    data = constants_table({"a": lambda step: step}, 7).to_bytes()
    with pytest.raises(ProgramError, match="27 bytes are not 7 steps of 1 float32"):
        ConstantsTable.from_bytes(data[:-1])
    assert math.isclose(ConstantsTable.from_bytes(data).values[-1, 0], 7)
