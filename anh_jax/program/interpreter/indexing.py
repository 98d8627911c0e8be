"""Gather and scatter. Indices outside the array mean what StableHLO says they mean.

jax's own clamping or dropping is written into the program; what is left is a gather that clamps
and a scatter that drops.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from anh_jax.program.interpreter.attributes import GatherNumbers, ScatterNumbers
from anh_jax.program.interpreter.regions import chooses_update, monoid
from anh_jax.program.interpreter.scope import Rule, Scope


def _gather(scope: Scope, x: Any, indices: Any) -> Any:
    return _gathered(scope, x, indices, scope.get("slice_sizes"))


def _dynamic_gather(scope: Scope, x: Any, indices: Any, sizes: Any) -> Any:
    return _gathered(scope, x, indices, scope.host(sizes, "slice sizes"))


def _gathered(scope: Scope, x: Any, indices: Any, sizes: tuple[int, ...]) -> Any:
    numbers: GatherNumbers = scope.get("dimension_numbers")
    return lax.gather(
        x,
        _vectors_last(indices, numbers.index_vector_dim),
        lax.GatherDimensionNumbers(
            offset_dims=numbers.offset_dims,
            collapsed_slice_dims=numbers.collapsed_slice_dims,
            start_index_map=numbers.start_index_map,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.start_indices_batching_dims,
        ),
        sizes,
        indices_are_sorted=scope.get("indices_are_sorted", False),
        # Lowers to the plain operator, which clamps.
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def _scatter(scope: Scope, x: Any, indices: Any, updates: Any) -> Any:
    numbers: ScatterNumbers = scope.get("scatter_dimension_numbers")
    return _scattering(scope)(
        jnp.asarray(x),
        _vectors_last(indices, numbers.index_vector_dim),
        jnp.asarray(updates),
        lax.ScatterDimensionNumbers(
            update_window_dims=numbers.update_window_dims,
            inserted_window_dims=numbers.inserted_window_dims,
            scatter_dims_to_operand_dims=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.input_batching_dims,
            scatter_indices_batching_dims=numbers.scatter_indices_batching_dims,
        ),
        indices_are_sorted=scope.get("indices_are_sorted", False),
        unique_indices=scope.get("unique_indices", False),
        # Lowers to the plain operator, which leaves out updates that do not fit.
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )


def _scattering(scope: Scope) -> Callable[..., Any]:
    (block,) = scope.operation.regions
    if chooses_update(block):
        return lax.scatter
    name = monoid(block)
    if name not in _SCATTERS:
        raise scope.error("its region is neither an update nor one of add, multiply, min, max")
    return _SCATTERS[name]


def _vectors_last(indices: Any, dimension: int) -> Any:
    if dimension == indices.ndim:
        return lax.expand_dims(indices, (dimension,))
    return jnp.moveaxis(jnp.asarray(indices), dimension, -1)


_SCATTERS: Mapping[str | None, Callable[..., Any]] = {
    "stablehlo.add": lax.scatter_add,
    "stablehlo.maximum": lax.scatter_max,
    "stablehlo.minimum": lax.scatter_min,
    "stablehlo.multiply": lax.scatter_mul,
    "stablehlo.subtract": lax.scatter_sub,
}
RULES: Mapping[str, Rule] = {
    "stablehlo.dynamic_gather": _dynamic_gather,
    "stablehlo.gather": _gather,
    "stablehlo.scatter": _scatter,
}
