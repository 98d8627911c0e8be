"""Draws one random deviation of an interpreted gradient: by noise, or by a derivative.

A sampler belongs to one batch size, and traces its program once; seeds are arguments.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from anh_jax.bounds.counter_hash import Stream
from anh_jax.bounds.noise import OFF, ON, MonteCarlo
from anh_jax.bounds.tangents import SCALE, roundoff_tangent
from anh_jax.program.interpret import InterpretedProgram
from anh_jax.program.tree import Tree
from attest.numerics_class import ClassRules

Inputs = tuple[Any, ...]


class Sampler(Protocol):
    """Draws deviations of one program. `inputs` are the program's arguments.

    Attributes:
        unit: what a deviation of one counts.
        traced: how many times the sampled program was traced, which is how often it was compiled.
    """

    unit: float
    traced: int

    def draw(self, inputs: Inputs, words: Stream) -> Tree:
        """Return the outputs moved by one random roundoff at each operator."""
        ...

    def base(self, inputs: Inputs) -> Tree:
        """Return what a draw deviates from; None where draws are deviations already."""
        ...

    def plain(self, inputs: Inputs) -> Tree:
        """Return the outputs as they are."""
        ...


class NoiseSampler:
    """Draws whole gradients with noise at every operator.

    Rounding to nearest errs by up to one unit roundoff, evenly: a deviation of 1/sqrt(3) of it.
    Noise of a whole one is drawn and counted as that, for the less an element moves the more often
    it stays where it is by chance, and would pass for an exact zero.
    """

    unit = 3**-0.5

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

    def base(self, inputs: Inputs) -> Tree:
        """Return the outputs without noise.

        From the samples' own compiled program, for another one rounds differently; it is no
        reference for anybody's gradient.
        """
        return self.plain(inputs)

    def _run(self, inputs: Inputs, seed: Any, amplitude: Any) -> Tree:
        self.traced += 1
        return self._program(*inputs, around=MonteCarlo(self._rules, seed, amplitude))


class TangentSampler:
    """Draws tangents of the gradient along random roundoff."""

    unit = 1 / SCALE

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

    def base(self, inputs: Inputs) -> Tree:
        """Return nothing: a tangent is a deviation."""
        return None

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
