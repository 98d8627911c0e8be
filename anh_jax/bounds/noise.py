"""Monte Carlo arithmetic: every operator's result moves by about its own rounding, at random.

The spread of a program's outputs over several seeds estimates how far honest executors may lie
apart (Parker, "Monte Carlo arithmetic", 1997). It is an estimate and no proven bound. Unlike
derivatives it sees through any operator, and masks, maxima and top-k flip as they would elsewhere.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from anh_jax.bounds.counter_hash import Stream, signed_unit
from anh_jax.bounds.perturbation import perturbed
from anh_jax.bounds.rounding_kinds import Rounds, is_exact, rounds
from anh_jax.bounds.roundoff_hook import RoundoffHook, Values
from anh_jax.program.interpret import Visit
from attest.numerics_class import ClassRules

_ROOT3 = math.sqrt(3.0)
ON, OFF = 0xFFFFFFFF, 0
# Noise is drawn this much larger than a unit roundoff: in float32 each value then moves by one unit
# in the last place, up or down, and none stays put by chance, which would pass for an exact zero.
STRENGTH = 2.0


class MonteCarlo(RoundoffHook):
    """Perturbs values. `seed` is two uint32 words, `amplitude` a uint32 scalar: ON or OFF.

    OFF gives unperturbed values from the same compiled program.
    """

    def __init__(self, rules: ClassRules, seed: Any, amplitude: Any) -> None:
        super().__init__(rules, seed)
        self._amplitude = amplitude

    def moved(self, value: jax.Array, roundoff: float, source: Stream) -> jax.Array:
        """Return the value, perturbed by a standard deviation of `STRENGTH` unit roundoffs."""
        return perturbed(value, STRENGTH * roundoff, self._amplitude, source)

    def shaken(self, value: jax.Array, size: Any, source: Stream) -> jax.Array:
        """Return the value with noise of `STRENGTH` times that standard deviation added."""
        noise = signed_unit(source, value.shape) * jnp.float32(_ROOT3 * STRENGTH) * size
        moved = value + jnp.where(self._amplitude != 0, noise, 0).astype(value.dtype)
        return jnp.where(jnp.isfinite(moved), moved, value)

    def result(
        self, visit: Visit, inputs: Values, value: jax.Array, roundoff: float, source: Stream
    ) -> jax.Array:
        """Return the result perturbed, except where the operator rounded nothing."""
        moved = self.moved(value, roundoff, source)
        if rounds(visit.operation) is not Rounds.RESULT:
            return moved
        exact = is_exact(visit.operation, inputs, value)
        return moved if exact is False else jnp.where(exact, value, moved)
