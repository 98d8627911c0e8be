"""Check A2: two updates may differ by a fraction of a learning rate in every block."""

import math

import numpy as np
import pytest

from anh_jax.bounds.effect import beyond_rounding, check_effect, effect_limit
from attest.numerics_class import CLASSES

PATH = ("layers", "kernel")


def effect(difference: np.ndarray, limit: float = 1e-3, skip: tuple = ()) -> float:
    return check_effect({PATH: difference}, limit=limit, passed_over=skip).value


def test_limit_is_looser_on_cold_steps() -> None:
    rules = CLASSES["f32"]
    assert effect_limit(rules, optimizer="adamw", step=10) == 1e-3
    assert effect_limit(rules, optimizer="adamw", step=9) == 0.1
    assert effect_limit(rules, optimizer="lion", step=10) == 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_linear_optimizers_have_no_such_check(optimizer: str) -> None:
    for rules in CLASSES.values():
        assert effect_limit(rules, optimizer=optimizer, step=10) is None


def test_bf16_has_none_before_step_10_and_none_for_lion() -> None:
    rules = CLASSES["bf16"]
    assert effect_limit(rules, optimizer="adamw", step=9) is None
    assert effect_limit(rules, optimizer="adamw", step=10) == 0.03
    assert effect_limit(rules, optimizer="lion", step=10) is None


def test_column_of_a_dead_unit_is_seen_where_rows_see_little() -> None:
    difference = np.zeros((100, 100))
    difference[:, 7] = 2e-3
    found = check_effect({PATH: difference}, limit=1e-3, passed_over=())
    assert found.value == pytest.approx(2.0)
    assert found.where == "layers/kernel[:, 7]"
    rows = np.sqrt((difference**2).mean(1)).max()
    assert rows / 1e-3 < 0.21


def test_tensor_that_is_passed_over_counts_for_nothing() -> None:
    difference = np.full((4, 4), 1.0)
    assert effect(difference) > 1
    assert effect(difference, skip=(PATH,)) == 0.0


def test_nothing_may_move_where_the_learning_rate_is_zero() -> None:
    assert effect(np.zeros((3, 3)), limit=0.0) == 0.0
    assert effect(np.full((3, 3), 1e-30), limit=0.0) == math.inf


def test_difference_that_is_not_a_number_does_not_accept() -> None:
    difference = np.zeros((3, 3))
    difference[1, 1] = math.nan
    assert not effect(difference) <= 1


def test_last_place_of_a_parameter_is_no_effect() -> None:
    reference = np.array([1.0, 1.0, 2.0], np.float32)
    committed = np.array([1 + 2**-23, 1 + 2**-22, 2.0], np.float32)
    assert beyond_rounding(committed, reference).tolist() == [0.0, 2**-23, 0.0]
