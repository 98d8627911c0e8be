"""Operators whose derivative is silently zero though the function is not constant.

Rounding, and bits read as numbers, are piecewise constant to calculus; programs build smooth
functions of them (jax 0.12 writes lgamma so), whose derivative would be wrong without any error.
"""

from collections.abc import Callable
from typing import Any

import jax

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.scope import Scope


def without_derivative(scope: Scope, function: Callable[[Any], Any], value: Any) -> Any:
    """Return `function(value)`, refusing by name where a tangent reaches it."""

    @jax.custom_jvp
    def guarded(x: Any) -> Any:
        return function(x)

    # jax calls this only for a tangent that is not known to be zero.
    @guarded.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise ProgramError(
            f"operator {scope.operation.name} at {scope.name}: its derivative would silently be"
            " zero; estimate the spread of this program by noise, or write it without"
        )

    del refuse
    return guarded(value)
