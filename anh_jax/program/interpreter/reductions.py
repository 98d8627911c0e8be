"""Reductions over dimensions and windows.

A region of one operator becomes jax's own reduction, which has a useful derivative; any other
region is evaluated as the reducer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax

from anh_jax.program.interpreter.references import index_choice
from anh_jax.program.interpreter.regions import monoid
from anh_jax.program.interpreter.scope import Rule, Scope


def _reduce(scope: Scope, *operands: Any) -> Any:
    count = len(operands) // 2
    values, starts = operands[:count], operands[count:]
    dimensions = scope.get("dimensions")
    known = _REDUCTIONS.get(monoid(scope.operation.regions[0]) or "")
    if count == 1 and known is not None and _same_bits(starts[0], known[1](values[0].dtype)):
        return known[0](values[0], dimensions)
    if count == 1:
        return lax.reduce(values[0], starts[0], _reducer(scope), dimensions)
    if (chosen := _chosen_index(scope, values, starts)) is not None:
        return chosen
    return lax.reduce(values, starts, _reducer(scope), dimensions)


def _chosen_index(scope: Scope, values: Any, starts: Any) -> Any:
    """Return value and index where the reduction is an argmax or argmin, else None."""
    if len(values) != 2 or len(scope.get("dimensions")) != 1:
        return None
    (axis,) = scope.get("dimensions")
    indices = scope.block.producer(scope.operation.inputs[1])
    counts = indices is not None and indices.attributes.get("iota_dimension") == axis
    dtypes = values[0].dtype.name, values[1].dtype.name
    name = index_choice(scope.operation.regions[0], scope.values, dtypes) if counts else None
    if name is None or not _same_bits(starts[1], _zero(values[1].dtype)):
        return None
    extreme, choose = (_lowest, lax.argmax) if name == "argmax" else (_highest, lax.argmin)
    if not _same_bits(starts[0], extreme(values[0].dtype)):
        return None
    index = choose(values[0], axis, values[1].dtype)
    value = jax.numpy.take_along_axis(values[0], jax.numpy.expand_dims(index, axis), axis)
    return jax.numpy.squeeze(value, axis), index


def _reduce_window(scope: Scope, *operands: Any) -> Any:
    count = len(operands) // 2
    values, starts = operands[:count], operands[count:]
    rank = values[0].ndim
    ones = (1,) * rank
    window = (
        scope.get("window_dimensions"),
        scope.get("window_strides", ones),
        _pairs(scope.get("padding"), rank),
        scope.get("base_dilations", ones),
        scope.get("window_dilations", ones),
    )
    name = monoid(scope.operation.regions[0])
    if count == 1 and name in _WINDOWS:
        # jax knows the sum or maximum, and its derivative, by the reducer and a concrete start.
        return lax.reduce_window(values[0], starts[0], _WINDOWS[name], *window)
    if count == 1:
        return lax.reduce_window(values[0], starts[0], _reducer(scope), *window)
    return lax.reduce_window(values, starts, _reducer(scope), *window)


def _select_and_scatter(scope: Scope, x: Any, source: Any, start: Any) -> Any:
    select, scatter = scope.operation.regions
    chosen = _selected(scope)
    if monoid(scatter) != "stablehlo.add" or not _same_bits(start, np.zeros((), x.dtype)):
        raise scope.error("it is not the derivative of a maximum or minimum over windows")
    del select
    ones = (1,) * x.ndim

    def pooled(values: Any) -> Any:
        extreme = _extreme(x.dtype, chosen)
        return lax.reduce_window(
            values,
            extreme,
            lax.max if chosen == "GE" else lax.min,
            scope.get("window_dimensions"),
            scope.get("window_strides", ones),
            _pairs(scope.get("padding"), x.ndim),
        )

    # jax's derivative of a windowed maximum is this very operator.
    _, transposed = jax.vjp(pooled, x)
    return transposed(source)


def _selected(scope: Scope) -> str:
    (comparison, *others) = scope.operation.regions[0].operations
    direction = comparison.attributes.get("comparison_direction")
    block = scope.operation.regions[0]
    if others or direction not in ("GE", "LE") or comparison.inputs != block.arguments:
        raise scope.error("its selection is not by >= or <=")
    return direction


def _extreme(dtype: Any, direction: str) -> Any:
    return _lowest(dtype) if direction == "GE" else _highest(dtype)


def _reducer(scope: Scope) -> Callable[[Any, Any], Any]:
    name = monoid(scope.operation.regions[0])
    if name in _BINARY:
        return _BINARY[name]
    region = scope.region()

    def reducer(left: Any, right: Any) -> Any:
        # One array or a tuple of them, as jax was given.
        if isinstance(left, tuple | list):
            return region(*left, *right)
        (result,) = region(left, right)
        return result

    return reducer


def _pairs(padding: Any, rank: int) -> list[tuple[int, int]]:
    if padding is None:
        return [(0, 0)] * rank
    return [(int(low), int(high)) for low, high in padding]


def _same_bits(found: Any, expected: Any) -> bool:
    if not isinstance(found, np.ndarray):
        return False
    wanted = np.asarray(expected, found.dtype)
    return found.shape == () and found.tobytes() == wanted.tobytes()


def _lowest(dtype: Any) -> Any:
    if dtype == np.bool_:
        return np.zeros((), dtype)
    floating = jax.numpy.issubdtype(dtype, jax.numpy.floating)
    return np.asarray(-np.inf if floating else jax.numpy.iinfo(dtype).min, dtype)


def _highest(dtype: Any) -> Any:
    if dtype == np.bool_:
        return np.ones((), dtype)
    floating = jax.numpy.issubdtype(dtype, jax.numpy.floating)
    return np.asarray(np.inf if floating else jax.numpy.iinfo(dtype).max, dtype)


def _ones(dtype: Any) -> Any:
    if jax.numpy.issubdtype(dtype, jax.numpy.integer):
        return np.invert(np.zeros((), dtype))
    return np.ones((), dtype)


def _zero(dtype: Any) -> Any:
    return np.zeros((), dtype)


_BINARY: Mapping[str | None, Callable[[Any, Any], Any]] = {
    "stablehlo.add": lax.add,
    "stablehlo.and": lax.bitwise_and,
    "stablehlo.maximum": lax.max,
    "stablehlo.minimum": lax.min,
    "stablehlo.multiply": lax.mul,
    "stablehlo.or": lax.bitwise_or,
    "stablehlo.xor": lax.bitwise_xor,
}
_WINDOWS: Mapping[str | None, Callable[[Any, Any], Any]] = {
    "stablehlo.add": lax.add,
    "stablehlo.maximum": lax.max,
    "stablehlo.minimum": lax.min,
}
_REDUCTIONS: Mapping[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "stablehlo.add": (lax.reduce_sum, _zero),
    "stablehlo.and": (lax.reduce_and, _ones),
    "stablehlo.maximum": (lax.reduce_max, _lowest),
    "stablehlo.minimum": (lax.reduce_min, _highest),
    "stablehlo.multiply": (lax.reduce_prod, lambda dtype: np.ones((), dtype)),
    "stablehlo.or": (lax.reduce_or, _zero),
    "stablehlo.xor": (lax.reduce_xor, _zero),
}
RULES: Mapping[str, Rule] = {
    "stablehlo.reduce": _reduce,
    "stablehlo.reduce_window": _reduce_window,
    "stablehlo.select_and_scatter": _select_and_scatter,
}
