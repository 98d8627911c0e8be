"""Initializers whose bits are equal on every backend.

Sixteen random bits are read as a signed integer, which float32 holds exactly, and scaled by a power
of two, which loses nothing. No logarithm, root or error function, which backends round differently,
takes part; so state 0 can be checked bit by bit (anh_jax/program/init_check.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from anh_jax.errors import ConfigError

# What flax asks of an initializer: (key, shape, dtype) -> array.
Initializer: TypeAlias = Callable[..., Any]

_BITS = 16
_LARGEST_EXPONENT = 40


def uniform(exponent: int) -> Initializer:
    """Return an initializer that draws from [-2^exponent, 2^exponent), 2^16 values, evenly.

    Raises:
        ConfigError: the exponent is beyond what stays a normal float32.
    """
    if abs(exponent) > _LARGEST_EXPONENT:
        raise ConfigError(f"initializer: exponent {exponent} is not within {_LARGEST_EXPONENT}")

    def draw(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> Float[Array, ...]:
        if jnp.dtype(dtype) != jnp.float32:
            raise ConfigError(f"initializer: parameters are float32, not {jnp.dtype(dtype).name}")
        bits = jax.random.bits(key, shape, jnp.uint16)
        numbers = jax.lax.bitcast_convert_type(bits, jnp.int16).astype(jnp.float32)
        return numbers * jnp.float32(math.ldexp(1.0, exponent - (_BITS - 1)))

    return draw


def fan_in_uniform(inputs: int, *, gain: float = 1.0) -> Initializer:
    """Return the uniform initializer nearest to a standard deviation of gain / sqrt(inputs).

    A uniform draw from [-a, a) deviates by a / sqrt(3); the nearest power of two is within sqrt(2)
    of the wanted one (LeCun et al., "Efficient BackProp", 1998, section 4.6).
    """
    bound = gain * math.sqrt(3.0 / inputs)
    return uniform(round(math.log2(bound)))
