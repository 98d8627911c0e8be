"""Squares are summed over blocks without losing what float32 cannot square."""

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.squares import host_sums, square_sums


@pytest.mark.parametrize("scale", [1e-34, 1e-23, 1e-6, 1.0, 1e12, 1e18])
def test_sums_are_those_of_float64_whatever_the_scale(scale: float) -> None:
    values = (np.random.default_rng(0).normal(size=(6, 9)) * scale).astype(np.float32)
    rows, columns = host_sums(square_sums(jnp.asarray(values)))
    exact = values.astype(np.float64) ** 2
    np.testing.assert_allclose(rows, exact.sum(1), rtol=1e-5)
    np.testing.assert_allclose(columns, exact.sum(0), rtol=1e-5)


def test_small_row_beside_a_large_one_keeps_its_sum() -> None:
    values = np.array([[1e-25] * 4, [1e10] * 4], np.float32)
    rows, _ = host_sums(square_sums(jnp.asarray(values)))
    np.testing.assert_allclose(rows, [4e-50, 4e20], rtol=1e-5)


def test_not_a_number_is_not_hidden() -> None:
    rows, columns = host_sums(square_sums(jnp.asarray([[1.0, np.nan], [1.0, 1.0]])))
    assert np.isnan(rows[0]) and rows[1] == 2
    assert columns[0] == 2 and np.isnan(columns[1])


def test_scalar_is_one_block() -> None:
    (block,) = host_sums(square_sums(jnp.float32(3)))
    assert block == 9
