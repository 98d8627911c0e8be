"""Integer arithmetic on the host: sizes, and what is computed from sizes and small constants.

A dynamic operator needs its sizes while it is traced, so integers that depend on no argument stay
numpy arrays. Floating point is never computed here: it would round as numpy does, not as the
program does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anh_jax.program.interpreter.operations import Operation, TensorType

Host = NDArray[Any]
_LARGEST = 64


def evaluate_on_host(operation: Operation, inputs: Sequence[Any]) -> Host | None:
    """Return the operation's result, None where it is not small integer arithmetic on the host."""
    rule = _RULES.get(operation.name)
    if rule is None or not all(isinstance(x, np.ndarray) for x in inputs):
        return None
    (kind,) = operation.output_types
    single = operation.name in _MOVES and all(x.size == 1 for x in inputs) and _size(kind) == 1
    whole = all(_exact(x.dtype) for x in (*inputs, kind))
    small = all(x.size <= _LARGEST for x in inputs) and _size(kind) <= _LARGEST
    if not single and not (whole and small):
        return None
    with np.errstate(all="ignore"):  # integers wrap around, as the program's do
        return np.asarray(rule(operation, *inputs), kind.dtype)


def _size(kind: TensorType) -> int:
    # A size that is not declared is at most that of the operands, which are small.
    return math.prod(1 if n is None else n for n in kind.shape)


def _exact(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iub"


def _compare(operation: Operation, x: Host, y: Host) -> Any:
    return _COMPARISONS[operation.attributes["comparison_direction"]](x, y)


def _divide(operation: Operation, x: Host, y: Host) -> Any:
    # All bits set is what devices give: -1, or the largest number without a sign.
    whole = np.where(y == 0, ~np.zeros_like(x), x // np.where(y == 0, 1, y))
    inexact = (y != 0) & (whole * y != x) & ((x < 0) != (y < 0))
    return whole + inexact  # rounds towards zero


def _remainder(operation: Operation, x: Host, y: Host) -> Any:
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y)))


def _reshape(operation: Operation, x: Host) -> Any:
    return x.reshape([n for n in operation.output_types[0].shape if n is not None])


def _broadcast(operation: Operation, x: Host) -> Any:
    shape = tuple(n for n in operation.output_types[0].shape if n is not None)
    dims = operation.attributes["broadcast_dimensions"]
    lined = np.ones(len(shape), int)
    lined[list(dims)] = x.shape
    return np.broadcast_to(x.reshape(lined), shape)


def _slice(operation: Operation, x: Host) -> Any:
    given = operation.attributes
    return x[
        tuple(
            slice(*bounds)
            for bounds in zip(
                given["start_indices"], given["limit_indices"], given["strides"], strict=True
            )
        )
    ]


_COMPARISONS: Mapping[str, Callable[[Host, Host], Any]] = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
}
_MOVES = frozenset(("stablehlo.reshape", "stablehlo.broadcast_in_dim"))
_RULES: Mapping[str, Callable[..., Any]] = {
    "stablehlo.add": lambda _, x, y: x + y,
    "stablehlo.subtract": lambda _, x, y: x - y,
    "stablehlo.multiply": lambda _, x, y: x * y,
    "stablehlo.divide": _divide,
    "stablehlo.remainder": _remainder,
    "stablehlo.maximum": lambda _, x, y: np.maximum(x, y),
    "stablehlo.minimum": lambda _, x, y: np.minimum(x, y),
    "stablehlo.negate": lambda _, x: np.zeros_like(x) - x,
    "stablehlo.abs": lambda _, x: np.abs(x),
    "stablehlo.sign": lambda _, x: np.sign(x),
    "stablehlo.and": lambda _, x, y: x & y,
    "stablehlo.or": lambda _, x, y: x | y,
    "stablehlo.xor": lambda _, x, y: x ^ y,
    "stablehlo.not": lambda _, x: ~x,
    "stablehlo.compare": _compare,
    "stablehlo.select": lambda _, p, x, y: np.where(p, x, y),
    "stablehlo.clamp": lambda _, low, x, high: np.minimum(np.maximum(x, low), high),
    "stablehlo.convert": lambda op, x: x.astype(op.output_types[0].dtype),
    "stablehlo.reshape": _reshape,
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.concatenate": lambda op, *xs: np.concatenate(xs, op.attributes["dimension"]),
    "stablehlo.slice": _slice,
}
