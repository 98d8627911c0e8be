"""Operators that compute each element from the elements at its place."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from anh_jax.program.interpreter.refused import without_derivative
from anh_jax.program.interpreter.scope import Rule, Scope


def _same(function: Callable[..., Any]) -> Rule:
    return lambda scope, *inputs: function(*inputs)


def _accurate(function: Callable[..., Any]) -> Rule:
    def rule(scope: Scope, x: Any) -> Any:
        mode = scope.get("result_accuracy", "DEFAULT")
        if mode == "DEFAULT":
            return function(x)
        if mode not in ("HIGHEST",):
            raise scope.error(f"its result accuracy is {mode}")
        return function(x, accuracy=lax.AccuracyMode.HIGHEST)

    return rule


def _stepped(function: Callable[[Any], Any]) -> Rule:
    return lambda scope, x: without_derivative(scope, function, x)


def _compare(scope: Scope, x: Any, y: Any) -> Any:
    if scope.get("compare_type") == "TOTALORDER":
        x, y = total_order(x), total_order(y)
    return COMPARISONS[scope.get("comparison_direction")](x, y)


def total_order(x: Any) -> Any:
    """Return integers in the order IEEE 754 calls total: -NaN < -inf < ... < -0 < 0 < ... < NaN."""
    bits = 8 * x.dtype.itemsize
    whole = lax.bitcast_convert_type(lax.stop_gradient(x), jnp.dtype(f"int{bits}"))
    flipped = lax.bitwise_xor(whole, lax.full_like(whole, jnp.iinfo(whole.dtype).max))
    return lax.select(lax.lt(whole, lax.full_like(whole, 0)), flipped, whole)


def _convert(scope: Scope, x: Any) -> Any:
    target = scope.operation.output_types[0].dtype

    def convert(value: Any) -> Any:
        return lax.convert_element_type(value, target)

    if jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(target, jnp.floating):
        return without_derivative(scope, convert, x)
    return convert(x)


def _bitcast(scope: Scope, x: Any) -> Any:
    target = scope.operation.output_types[0].dtype

    def cast(value: Any) -> Any:
        return lax.bitcast_convert_type(value, target)

    if jnp.issubdtype(x.dtype, jnp.floating):
        return without_derivative(scope, cast, x)
    return cast(x)


def _select(scope: Scope, chosen: Any, x: Any, y: Any) -> Any:
    return lax.select(jnp.asarray(chosen), jnp.asarray(x), jnp.asarray(y))


def _clamp(scope: Scope, low: Any, x: Any, high: Any) -> Any:
    # One bound for all elements: jax's derivative wants it for each.
    least, most = (n if n.shape == x.shape else lax.broadcast(n, x.shape) for n in (low, high))
    return lax.clamp(least, x, most)


def _reduce_precision(scope: Scope, x: Any) -> Any:
    return lax.reduce_precision(x, scope.get("exponent_bits"), scope.get("mantissa_bits"))


def _power(scope: Scope, x: Any, y: Any) -> Any:
    return jnp.power(x, y) if jnp.issubdtype(x.dtype, jnp.integer) else lax.pow(x, y)


COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "EQ": lax.eq,
    "NE": lax.ne,
    "LT": lax.lt,
    "LE": lax.le,
    "GT": lax.gt,
    "GE": lax.ge,
}
RULES: Mapping[str, Rule] = {
    "stablehlo.abs": _same(lax.abs),
    "stablehlo.add": _same(lax.add),
    "stablehlo.and": _same(lax.bitwise_and),
    "stablehlo.atan2": _same(lax.atan2),
    "stablehlo.bitcast_convert": _bitcast,
    "stablehlo.cbrt": _accurate(lax.cbrt),
    "stablehlo.ceil": _stepped(lax.ceil),
    "stablehlo.clamp": _clamp,
    "stablehlo.compare": _compare,
    "stablehlo.convert": _convert,
    "stablehlo.cosine": _accurate(lax.cos),
    "stablehlo.count_leading_zeros": _same(lax.clz),
    "stablehlo.divide": _same(lax.div),
    "stablehlo.exponential": _accurate(lax.exp),
    "stablehlo.exponential_minus_one": _accurate(lax.expm1),
    "stablehlo.floor": _stepped(lax.floor),
    "stablehlo.is_finite": _same(lax.is_finite),
    "stablehlo.log": _accurate(lax.log),
    "stablehlo.log_plus_one": _accurate(lax.log1p),
    "stablehlo.logistic": _accurate(lax.logistic),
    "stablehlo.maximum": _same(lax.max),
    "stablehlo.minimum": _same(lax.min),
    "stablehlo.multiply": _same(lax.mul),
    "stablehlo.negate": _same(lax.neg),
    "stablehlo.not": _same(lax.bitwise_not),
    "stablehlo.or": _same(lax.bitwise_or),
    "stablehlo.popcnt": _same(lax.population_count),
    "stablehlo.power": _power,
    "stablehlo.reduce_precision": _reduce_precision,
    "stablehlo.remainder": _same(lax.rem),
    "stablehlo.round_nearest_afz": _stepped(
        lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO)
    ),
    "stablehlo.round_nearest_even": _stepped(
        lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)
    ),
    "stablehlo.rsqrt": _accurate(lax.rsqrt),
    "stablehlo.select": _select,
    "stablehlo.shift_left": _same(lax.shift_left),
    "stablehlo.shift_right_arithmetic": _same(lax.shift_right_arithmetic),
    "stablehlo.shift_right_logical": _same(lax.shift_right_logical),
    "stablehlo.sign": _same(lax.sign),
    "stablehlo.sine": _accurate(lax.sin),
    "stablehlo.sqrt": _accurate(lax.sqrt),
    "stablehlo.subtract": _same(lax.sub),
    "stablehlo.tan": _accurate(lax.tan),
    "stablehlo.tanh": _accurate(lax.tanh),
    "stablehlo.xor": _same(lax.bitwise_xor),
}
