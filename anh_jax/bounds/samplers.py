"""Draws one random deviation of an interpreted gradient: by noise, or by a derivative.

A sampler belongs to one batch size, and traces its program once; seeds are arguments.
"""

from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from anh_jax.bounds.counter_hash import Stream
from anh_jax.bounds.noise import OFF, ON, STRENGTH, MonteCarlo
from anh_jax.bounds.roundoff_hook import COUNTED
from anh_jax.bounds.tangents import SCALE, roundoff_tangent
from anh_jax.program.interpret import InterpretedProgram
from anh_jax.program.tree import Tree
from attest.numerics_class import ClassRules

Inputs = tuple[Any, ...]
Draws = Literal["values", "deviations"]


class Sampler(Protocol):
    """Draws deviations of one program. `inputs` are the program's arguments.

    Attributes:
        unit: what a deviation of one counts.
        draws: whether a draw is the outputs' `values`, moved, or their `deviations`.
        traced: how many times the sampled program was traced, which is how often it was compiled.
    """

    unit: float
    draws: Draws
    traced: int

    def draw(self, inputs: Inputs, words: Stream) -> Tree:
        """Return the outputs moved by one random roundoff at each operator."""
        ...

    def plain(self, inputs: Inputs) -> Tree:
        """Return the outputs as they are."""
        ...


class NoiseSampler:
    """Draws whole gradients with noise at every operator.

    The noise is larger than a rounding and is scaled down to what one counts as.
    """

    unit = COUNTED / STRENGTH
    draws: Draws = "values"

    def __init__(self, program: InterpretedProgram, rules: ClassRules) -> None:
        self.traced = 0
        self._program = program
        self._rules = rules
        self._jitted = jax.jit(self._run)

    def draw(self, inputs: Inputs, words: Stream) -> Tree:
        """Return the outputs with noise."""
        return self._jitted(inputs, _seed(words), jnp.uint32(ON))

    def plain(self, inputs: Inputs) -> Tree:
        """Return the outputs without noise, from the same compiled program."""
        return self._jitted(inputs, jnp.zeros(2, jnp.uint32), jnp.uint32(OFF))

    def _run(self, inputs: Inputs, seed: Any, amplitude: Any) -> Tree:
        self.traced += 1
        return self._program(*inputs, around=MonteCarlo(self._rules, seed, amplitude))


class TangentSampler:
    """Draws tangents of the gradient along random roundoff."""

    # Drawn evenly over +- one unit roundoff, which deviates by 1/sqrt(3) of it.
    unit = COUNTED * 3**0.5 / SCALE
    draws: Draws = "deviations"

    def __init__(self, program: InterpretedProgram, rules: ClassRules) -> None:
        self.traced = 0
        self._program = program
        self._rules = rules
        self._jitted = jax.jit(self._run)
        self._plain = jax.jit(lambda inputs: program(*inputs))

    def draw(self, inputs: Inputs, words: Stream) -> Tree:
        """Return a tangent."""
        return self._jitted(inputs, _seed(words))

    def plain(self, inputs: Inputs) -> Tree:
        """Return the outputs themselves."""
        return self._plain(inputs)

    def _run(self, inputs: Inputs, seed: Any) -> Tree:
        self.traced += 1
        values, tangents = roundoff_tangent(
            lambda hook: self._program(*inputs, around=hook), self._rules, seed
        )
        return jax.tree.map(_real, values, tangents)


def _real(value: Any, tangent: Any) -> jax.Array:
    # The tangent of integers has a dtype without values; nothing rounds there.
    if jnp.issubdtype(value.dtype, jnp.floating):
        return tangent
    return jnp.zeros(value.shape, jnp.float32)


def _seed(words: Stream) -> jax.Array:
    return jnp.stack([words.first, words.second])
