"""Composites whose derivative jax knows: value by the decomposition, tangent by jax's own rule.

A decomposition is what the program computes, but may be built of bit tricks without derivative.
Composites that are not listed are evaluated by their decomposition like a called function. jax's
pass to the refined form turns some composites back into operators of their own (`chlo.erf`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax

from anh_jax.program.interpreter.scope import Rule, Scope


def _known(function: Callable[..., Any]) -> Rule:
    def rule(scope: Scope, *inputs: Any) -> Any:
        if not scope.operation.is_composite:
            return function(*inputs)

        @jax.custom_jvp
        def decomposed(*values: Any) -> Any:
            (result,) = scope.decomposition(*values)
            return result

        @decomposed.defjvp
        def derivative(primals: Any, tangents: Any) -> Any:
            _, tangent = jax.jvp(function, primals, tangents)
            return decomposed(*primals), tangent

        del derivative
        return decomposed(*inputs)

    return rule


def _top_k(scope: Scope, x: Any) -> Any:
    given = scope.get("composite_attributes", scope.operation.attributes)
    if not given.get("largest", True):
        raise scope.error("it asks for the smallest values")
    return tuple(lax.top_k(x, given["k"]))


RULES: Mapping[str, Rule] = {
    "chlo.acos": _known(lax.acos),
    "chlo.acosh": _known(lax.acosh),
    "chlo.asin": _known(lax.asin),
    "chlo.asinh": _known(lax.asinh),
    "chlo.atanh": _known(lax.atanh),
    "chlo.cosh": _known(lax.cosh),
    "chlo.erf": _known(lax.erf),
    "chlo.erfc": _known(lax.erfc),
    "chlo.sinh": _known(lax.sinh),
    "chlo.top_k": _top_k,
}
