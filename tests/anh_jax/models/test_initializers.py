import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.errors import ConfigError
from anh_jax.models.initializers import fan_in_uniform, uniform


@pytest.mark.parametrize("exponent", [-7, 0, 3])
def test_draws_are_even_multiples_of_a_power_of_two(exponent):
    drawn = np.asarray(uniform(exponent)(jax.random.key(1), (100, 100)), np.float64)
    steps = drawn * 2.0 ** (15 - exponent)
    assert np.array_equal(steps, np.round(steps))
    assert drawn.min() >= -(2.0**exponent) and drawn.max() < 2.0**exponent
    assert abs(drawn.mean()) < 0.03 * 2.0**exponent
    assert drawn.std() == pytest.approx(2.0**exponent / np.sqrt(3), rel=0.02)


def test_draws_are_the_documented_function_of_the_bits():
    key = jax.random.key(7)
    bits = np.asarray(jax.random.bits(key, (64,), jnp.uint16))
    expected = bits.view(np.int16).astype(np.float32) * np.float32(2.0**-17)
    assert np.asarray(uniform(-2)(key, (64,))).tobytes() == expected.tobytes()


@pytest.mark.parametrize("inputs", [1, 3, 64, 1000, 4096])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_spread_is_within_a_root_of_two_of_the_wanted_one(inputs, gain):
    drawn = np.asarray(fan_in_uniform(inputs, gain=gain)(jax.random.key(0), (20_000,)))
    ratio = drawn.std() / (gain / np.sqrt(inputs))
    assert 0.69 < ratio < 1.43


def test_other_dtypes_and_extreme_scales_are_refused():
    with pytest.raises(ConfigError, match="parameters are float32, not bfloat16"):
        uniform(0)(jax.random.key(0), (2,), jnp.bfloat16)
    with pytest.raises(ConfigError, match="exponent 41 is not within 40"):
        uniform(41)
