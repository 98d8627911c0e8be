"""Noise of one roundoff has that size, has no bias, and leaves zeros and infinities alone."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.counter_hash import seed_of, stream
from anh_jax.bounds.noise import OFF, ON
from anh_jax.bounds.perturbation import perturbed, unit_roundoff

COUNT = 200_000
NARROW = (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2)


def noisy(values: Any, deviation: float, seed: int = 1, amplitude: int = ON) -> np.ndarray:
    source = stream(seed_of(seed), "main/1", ())
    moved = perturbed(jnp.asarray(values), deviation, jnp.uint32(amplitude), source)
    assert moved.dtype == values.dtype
    return np.asarray(moved)


def relative(values: Any, moved: np.ndarray) -> np.ndarray:
    return moved.astype(np.float64) / np.asarray(values).astype(np.float64) - 1


def spread_values(dtype: Any) -> Any:
    # Mantissas of every size, far from the ends of any of these dtypes.
    return jnp.asarray(2 ** np.random.default_rng(0).uniform(-2, 2, COUNT), dtype)


@pytest.mark.parametrize("deviation", [2**-24.5, 2**-24, 2**-22, 2**-16, 2**-11])
def test_float32_noise_has_the_deviation_asked_for_and_no_bias(deviation: float) -> None:
    values = spread_values(jnp.float32)
    found = relative(values, noisy(values, deviation))
    assert 0.95 < found.std() / deviation < 1.05
    assert abs(found.mean()) < 5 * found.std() / COUNT**0.5


@pytest.mark.parametrize("dtype", NARROW)
def test_stochastic_rounding_has_about_one_roundoff_and_no_bias(dtype: Any) -> None:
    values = spread_values(dtype)
    found = relative(values, noisy(values, unit_roundoff(dtype)))
    assert 0.7 < found.std() / unit_roundoff(dtype) < 1.1
    assert abs(found.mean()) < 5 * found.std() / COUNT**0.5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e5m2])
def test_stochastic_rounding_is_unbiased_at_the_edge_of_a_binade(dtype: Any) -> None:
    values = jnp.ones(COUNT, dtype)
    found = relative(values, noisy(values, unit_roundoff(dtype)))
    assert np.unique(found).size > 2
    assert abs(found.mean()) < 5 * found.std() / COUNT**0.5


@pytest.mark.parametrize("dtype", [jnp.float32, *NARROW[:2]])
def test_zeros_and_what_is_not_finite_keep_their_bits(dtype: Any) -> None:
    values = jnp.asarray([0.0, -0.0, np.inf, -np.inf, np.nan] * 100, dtype)
    assert noisy(values, unit_roundoff(dtype)).tobytes() == np.asarray(values).tobytes()


@pytest.mark.parametrize("dtype", [jnp.float32, *NARROW])
def test_largest_number_does_not_become_infinite(dtype: Any) -> None:
    values = jnp.full(1000, jnp.finfo(dtype).max, dtype)
    moved = noisy(values, unit_roundoff(dtype)).astype(np.float32)
    assert np.all(np.isfinite(moved)) and len(np.unique(moved)) > 1


@pytest.mark.parametrize("dtype", [jnp.float32, *NARROW])
def test_noise_switched_off_gives_the_bits_of_the_value(dtype: Any) -> None:
    values = spread_values(dtype)
    for deviation in (2**-24, 2**-11):
        moved = noisy(values, deviation, amplitude=OFF)
        assert moved.tobytes() == np.asarray(values).tobytes()


def test_seeds_give_different_noise_and_one_seed_the_same() -> None:
    values = spread_values(jnp.float32)
    first, again, other = (noisy(values, 2**-24, seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert abs(np.corrcoef(relative(values, first), relative(values, other))[0, 1]) < 0.02
