"""Random derivatives: Monte Carlo arithmetic to first order, for one random direction a sample.

A tangent of roundoff is injected at every operator and carried forward. The values themselves are
untouched, and a tangent that is exactly zero says that no rounding reaches the element: what noise
says only after many samples. Operators whose derivative would silently be zero are refused by name
when a tangent reaches them (`program/interpreter/refused.py`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.bounds.counter_hash import Stream, signed_unit
from anh_jax.bounds.roundoff_hook import RoundoffHook
from anh_jax.errors import ProgramError
from anh_jax.program.tree import Tree
from attest.numerics_class import ClassRules

SCALE = 2.0**12
"""Tangents are carried in units of 1 / SCALE: those of small float32 numbers do not underflow, and
those of large float16 numbers do not overflow."""


class RoundoffTangents(RoundoffHook):
    """Injects tangents; `switch` is the float32 variable along which the derivative is taken."""

    def __init__(self, rules: ClassRules, seed: Any, switch: Any) -> None:
        super().__init__(rules, seed)
        self._switch = switch

    def moved(self, value: jax.Array, roundoff: float, source: Stream) -> jax.Array:
        """Return the value, with a tangent along the switch: uniform on +- one roundoff of it."""
        if value.dtype.itemsize == 1:
            raise ProgramError(
                f"a value of {value.dtype.name}{list(value.shape)}: a tangent does not fit its few"
                " digits; estimate the spread by noise"
            )
        noise = signed_unit(source, value.shape) * jnp.float32(roundoff * SCALE)
        still = lax.stop_gradient(value)
        # An infinity has no roundoff: masks are made of them.
        direction = jnp.where(jnp.isfinite(still), still * noise.astype(value.dtype), 0)
        return _injected(value, self._switch, direction.astype(value.dtype))

    def shaken(self, value: jax.Array, size: Any, source: Stream) -> jax.Array:
        """Return the value, with a tangent along the switch: uniform on +- `size`."""
        direction = signed_unit(source, value.shape) * (size * jnp.float32(SCALE))
        direction = jnp.where(jnp.isfinite(direction), direction, 0)
        return _injected(value, self._switch, direction.astype(value.dtype))


def roundoff_tangent(
    function: Callable[[RoundoffTangents], Tree], rules: ClassRules, seed: Any
) -> tuple[Tree, Tree]:
    """Return `function(hook)` and its random roundoff tangent, in units of 1 / SCALE.

    `function` evaluates an interpreted program with the hook that it is given.
    """
    return jax.jvp(
        lambda switch: function(RoundoffTangents(rules, seed, switch)),
        (jnp.float32(0),),
        (jnp.float32(1),),
    )


@jax.custom_jvp
def _injected(value: jax.Array, switch: jax.Array, direction: jax.Array) -> jax.Array:
    return value


@_injected.defjvp
def _injected_tangent(primals: Any, tangents: Any) -> Any:
    value, _, direction = primals
    moving, turning, _ = tangents
    return value, moving + turning.astype(value.dtype) * direction
