"""What a recorded step ends in is compared with the committed gradient, tensor by tensor."""

import math

import numpy as np
import pytest

from anh_jax.audit.operator import end_distance

W = ("w",)


def distance(committed: list[float], recorded: list[float], tolerance: float = 1e-3) -> float:
    found = end_distance(
        {W: np.asarray(committed, np.float32)}, {W: np.asarray(recorded, np.float32)}, tolerance
    )
    assert found.accepted == (found.value <= 1)
    return found.value


def test_distance_is_over_the_norm_times_the_tolerance() -> None:
    assert math.isclose(distance([3.0, 4.005], [3.0, 4.0]), 1.0, rel_tol=1e-3)


def test_sign_of_a_zero_is_no_distance() -> None:
    assert distance([-0.0, 0.0], [0.0, 0.0]) == 0


@pytest.mark.parametrize("committed", [[1e-30, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
def test_anything_where_zeros_were_recorded_is_another_gradient(committed: list[float]) -> None:
    assert not distance(committed, [0.0, 0.0]) <= 1


@pytest.mark.parametrize("committed", [[math.nan, 1.0], [math.inf, 1.0]])
def test_what_is_not_finite_is_another_gradient(committed: list[float]) -> None:
    assert not distance(committed, [1.0, 1.0]) <= 1


def test_another_shape_is_another_gradient() -> None:
    assert distance([1.0], [1.0, 1.0]) == math.inf
