"""Perturbs values by a given relative standard deviation, in the dtype that they have.

Two ways, as a dtype's grid allows. Where the deviation is about one unit roundoff, float32 moves
by whole units in the last place with some probability: x (1 + u xi) with real xi would round back
to x. Narrow dtypes are perturbed in float32 and rounded stochastically, which is unbiased. Zeros
stay zeros, what is not finite stays as it is, and nothing finite becomes infinite.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.bounds.counter_hash import Stream, random_bits, signed_unit, substream, unit

# Below this many units in the last place, real-valued relative noise would be rounded away.
_REAL_VALUED = 8.0
_ROOT3 = math.sqrt(3.0)
_FULL = 2.0**32


def is_float(value: Any) -> bool:
    """Tell whether a value is a real floating-point array, fp8 included."""
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def is_narrow(dtype: Any) -> bool:
    """Tell whether a float dtype has fewer digits than float32."""
    return jnp.finfo(dtype).nmant < 23


def unit_roundoff(dtype: Any) -> float:
    """Return the largest relative error of rounding to nearest in a dtype."""
    return float(jnp.finfo(dtype).eps) / 2


def perturbed(value: jax.Array, deviation: float, amplitude: Any, source: Stream) -> jax.Array:
    """Return `value` with relative noise of standard deviation `deviation`.

    `amplitude` is a uint32 scalar: all ones switch the noise on, zero switches it off and gives the
    bits of `value` (so that noisy and plain evaluation share one compiled program). A narrow dtype
    is never perturbed by less than its own rounding.
    """
    if deviation == 0.0:
        return value
    if is_narrow(value.dtype):
        return _stochastically_rounded(value, deviation, amplitude, source)
    steps = deviation / float(jnp.finfo(value.dtype).eps)
    if steps < _REAL_VALUED:
        factor = 1 + _whole_steps(value, steps, amplitude, source)
    else:
        noise = signed_unit(source, value.shape).astype(value.dtype)
        scale = jnp.where(amplitude != 0, value.dtype.type(deviation * _ROOT3), 0)
        factor = 1 + noise * scale.astype(value.dtype)
    moved = value * factor
    return jnp.where(jnp.isfinite(moved), moved, value)


def _whole_steps(value: jax.Array, steps: float, amplitude: Any, source: Stream) -> jax.Array:
    """Return multiples of the dtype's epsilon, of standard deviation `steps`: -c, 0 or +c."""
    size = max(1, math.ceil(steps))
    share = jnp.uint32(min(int(_FULL * (steps / size) ** 2 / 2), 2**31)) & amplitude
    bits = random_bits(source, value.shape)
    up, down = bits < share, ~bits < share
    whole = value.dtype.type(size * float(jnp.finfo(value.dtype).eps))
    zero = jnp.zeros_like(whole)
    return jnp.where(up, whole, zero) - jnp.where(down, whole, zero)


def _stochastically_rounded(
    value: jax.Array, deviation: float, amplitude: Any, source: Stream
) -> jax.Array:
    wide = value.astype(jnp.float32)
    # Rounding up or down at random gives sqrt(2/3) roundoffs on average; noise before it the rest.
    own = 2 / 3 * unit_roundoff(value.dtype) ** 2
    limit = jnp.float32(math.sqrt(3 * max(deviation**2 - own, 0.0)))
    moved = wide * (1 + limit * signed_unit(substream(source, 0), value.shape))
    spacing = last_place(moved, value.dtype)
    # Counted in units of the binade that it lies in: across its edge the grid is another one.
    whole = jnp.floor(moved / spacing + unit(substream(source, 1), value.shape))
    rounded = (whole * spacing).astype(value.dtype)
    keep = jnp.isfinite(rounded) & (wide != 0) & (amplitude != 0)
    return jnp.where(keep, rounded, value)


def last_place(value: jax.Array, dtype: Any) -> jax.Array:
    """Return one unit in the last place that float32 values have in a narrower dtype."""
    info = jnp.finfo(dtype)
    bits = lax.bitcast_convert_type(value, jnp.uint32) & jnp.uint32(0x7F800000)
    power = lax.bitcast_convert_type(bits, jnp.float32)
    smallest = max(float(info.smallest_normal), float(jnp.finfo(jnp.float32).smallest_normal))
    return jnp.maximum(power, jnp.float32(smallest)) * jnp.float32(2.0**-info.nmant)
