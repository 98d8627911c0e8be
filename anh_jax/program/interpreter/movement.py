"""Operators that move, repeat, cut or number elements and compute nothing."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from anh_jax.program.interpreter.scope import Rule, Scope


def _static_shape(scope: Scope) -> tuple[int, ...]:
    shape = scope.operation.output_types[0].shape
    if None in shape:
        raise scope.error("its result's size is not written in the program")
    return tuple(n for n in shape if n is not None)


def _constant(scope: Scope) -> Any:
    return scope.get("value")


def _reshape(scope: Scope, x: Any) -> Any:
    return lax.reshape(x, _static_shape(scope))


def _dynamic_reshape(scope: Scope, x: Any, shape: Any) -> Any:
    return lax.reshape(x, scope.host(shape, "sizes"))


def _broadcast(scope: Scope, x: Any) -> Any:
    return lax.broadcast_in_dim(x, _static_shape(scope), scope.get("broadcast_dimensions"))


def _dynamic_broadcast(scope: Scope, x: Any, shape: Any) -> Any:
    return lax.broadcast_in_dim(x, scope.host(shape, "sizes"), scope.get("broadcast_dimensions"))


def _iota(scope: Scope) -> Any:
    return _numbered(scope, _static_shape(scope))


def _dynamic_iota(scope: Scope, shape: Any) -> Any:
    return _numbered(scope, scope.host(shape, "sizes"))


def _numbered(scope: Scope, shape: tuple[int, ...]) -> Any:
    dtype = scope.operation.output_types[0].dtype
    return lax.broadcasted_iota(dtype, shape, scope.get("iota_dimension"))


def _slice(scope: Scope, x: Any) -> Any:
    return lax.slice(
        x, scope.get("start_indices"), scope.get("limit_indices"), scope.get("strides")
    )


def _real_dynamic_slice(scope: Scope, x: Any, start: Any, limit: Any, strides: Any) -> Any:
    if isinstance(start, np.ndarray) and isinstance(limit, np.ndarray):
        bounds = (scope.host(n, "bounds") for n in (start, limit, strides))
        return lax.slice(x, *bounds)
    # How jax stores a slice at a computed start whose size is symbolic: limit = start + sizes.
    starts = scope.operation.inputs[1]
    added = scope.block.producer(scope.operation.inputs[2])
    if added is None or added.name != "stablehlo.add" or starts not in added.inputs:
        raise scope.error("its limit is not its start plus sizes")
    if set(scope.host(strides, "strides")) - {1}:
        raise scope.error("it has strides and a computed start")
    (sizes,) = [n for n in added.inputs if n != starts]
    index = [lax.index_in_dim(start, i, keepdims=False) for i in range(x.ndim)]
    return lax.dynamic_slice(x, index, scope.host(scope.values[sizes], "sizes"))


def _dynamic_slice(scope: Scope, x: Any, *start: Any) -> Any:
    return lax.dynamic_slice(x, start, scope.get("slice_sizes"))


def _dynamic_update_slice(scope: Scope, x: Any, update: Any, *start: Any) -> Any:
    return lax.dynamic_update_slice(x, update, start)


def _pad(scope: Scope, x: Any, value: Any) -> Any:
    low, high = scope.get("edge_padding_low"), scope.get("edge_padding_high")
    return _padded(x, value, low, high, scope.get("interior_padding"))


def _dynamic_pad(scope: Scope, x: Any, value: Any, *amounts: Any) -> Any:
    return _padded(x, value, *(scope.host(n, "amounts") for n in amounts))


def _padded(x: Any, value: Any, low: Any, high: Any, interior: Any) -> Any:
    return lax.pad(x, jnp.asarray(value), list(zip(low, high, interior, strict=True)))


def _concatenate(scope: Scope, *parts: Any) -> Any:
    return lax.concatenate(parts, scope.get("dimension"))


def _transpose(scope: Scope, x: Any) -> Any:
    return lax.transpose(x, scope.get("permutation"))


def _reverse(scope: Scope, x: Any) -> Any:
    return lax.rev(x, scope.get("dimensions"))


def _dimension_size(scope: Scope, x: Any) -> Any:
    return np.asarray(x.shape[scope.get("dimension")], np.int32)


RULES: Mapping[str, Rule] = {
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.concatenate": _concatenate,
    "stablehlo.constant": _constant,
    "stablehlo.dynamic_broadcast_in_dim": _dynamic_broadcast,
    "stablehlo.dynamic_iota": _dynamic_iota,
    "stablehlo.dynamic_pad": _dynamic_pad,
    "stablehlo.dynamic_reshape": _dynamic_reshape,
    "stablehlo.dynamic_slice": _dynamic_slice,
    "stablehlo.dynamic_update_slice": _dynamic_update_slice,
    "stablehlo.get_dimension_size": _dimension_size,
    "stablehlo.iota": _iota,
    "stablehlo.pad": _pad,
    "stablehlo.real_dynamic_slice": _real_dynamic_slice,
    "stablehlo.reshape": _reshape,
    "stablehlo.reverse": _reverse,
    "stablehlo.slice": _slice,
    "stablehlo.transpose": _transpose,
}
