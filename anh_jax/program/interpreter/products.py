"""Matrix products and convolutions.

A stored dot algorithm is left out: no CPU runs those of tensor cores, and the CPU compiler silently
runs some of them as float32. Whoever emulates a numerics class rounds the operands in a hook.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import lax

from anh_jax.program.interpreter.attributes import ConvolutionNumbers, DotNumbers
from anh_jax.program.interpreter.scope import Rule, Scope


def _dot(scope: Scope, x: Any, y: Any) -> Any:
    numbers: DotNumbers = scope.get("dot_dimension_numbers")
    return lax.dot_general(
        x,
        y,
        (
            (numbers.lhs_contracting, numbers.rhs_contracting),
            (numbers.lhs_batching, numbers.rhs_batching),
        ),
        precision=_precision(scope),
        preferred_element_type=scope.operation.output_types[0].dtype,
    )


def _convolution(scope: Scope, x: Any, kernel: Any) -> Any:
    padding = scope.get("padding")
    pairs = [] if padding is None else padding.tolist()
    return _convolved(scope, x, kernel, pairs)


def _dynamic_convolution(scope: Scope, x: Any, kernel: Any, padding: Any) -> Any:
    amounts = np.reshape(scope.host(padding, "paddings"), (-1, 2))
    return _convolved(scope, x, kernel, amounts.tolist())


def _convolved(scope: Scope, x: Any, kernel: Any, padding: list[Any]) -> Any:
    numbers: ConvolutionNumbers = scope.get("dimension_numbers")
    spatial = len(numbers.lhs) - 2
    ones = (1,) * spatial
    reversed_axes = [
        axis
        for axis, turned in zip(
            numbers.rhs[2:], scope.get("window_reversal") or (False,) * spatial, strict=True
        )
        if turned
    ]
    return lax.conv_general_dilated(
        x,
        lax.rev(kernel, reversed_axes) if reversed_axes else kernel,
        scope.get("window_strides", ones),
        padding or [(0, 0)] * spatial,
        scope.get("lhs_dilation", ones),
        scope.get("rhs_dilation", ones),
        lax.ConvDimensionNumbers(numbers.lhs, numbers.rhs, numbers.out),
        scope.get("feature_group_count", 1),
        scope.get("batch_group_count", 1),
        _precision(scope),
        scope.operation.output_types[0].dtype,
    )


def _precision(scope: Scope) -> tuple[lax.Precision, lax.Precision]:
    # None would mean what this process has configured, not what the program says.
    left, right = scope.get("precision_config", ("DEFAULT", "DEFAULT"))
    return lax.Precision[left], lax.Precision[right]


RULES: Mapping[str, Rule] = {
    "stablehlo.convolution": _convolution,
    "stablehlo.dot_general": _dot,
    "stablehlo.dynamic_conv": _dynamic_convolution,
}
