"""Puts roundoff at every operator of an interpreted program, by the rules of its numerics class.

Matrix products and convolutions read each operand with the class's roundoff, which models the
rounding of products and of what the multiplier drops, and costs no second product. Reductions and
scatters round each summand; what any operator writes it rounds once more. In a dtype narrower than
float32 the dtype's own rounding is what is stored.

Partial sums round as well. A scatter adds one update after the other: with n updates x to an
element that is n (S^2/3 + Q/6) squared roundoffs, S the sum of x and Q that of x^2, on average over
all orders. In products and reductions, whose terms are not at hand, each summand's own roundoff is
enlarged by what a chain of partial sums of random sign adds, n Q/6 (`chained`). Measured on CPUs,
whose matrix products are such chains: leaving this out makes honest language models, 768 summands,
lie 3 spreads off per tensor and above 10 in small blocks, instead of 1.3 and 5.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.bounds.counter_hash import Stream, stream
from anh_jax.bounds.perturbation import is_float, is_narrow, unit_roundoff
from anh_jax.bounds.rounding_kinds import Rounds, plain_name, rounds, summand_count, summands
from anh_jax.program.interpret import Visit
from attest.numerics_class import ClassRules

Values = tuple[Any, ...]
COUNTED = 1.0
"""What one rounding counts as, in unit roundoffs: the largest that it can be.

On average over all values it is 1/sqrt(3). Counted so, honest language models came to 10.4 spreads
in blocks of 8 elements and were refuted (measured); the contract's constants leave no room for it.
"""
# Two operands share the rounding of a product.
_ROOT_HALF = math.sqrt(0.5)
# Executors cut longer sums into parts of about so many summands, and add up the parts.
_LONGEST_CHAIN = 1024


def chained(count: int) -> float:
    """Return how many times its own roundoff each of `count` summands of one sum counts.

    The square is 1 for the summand, (n - 1)/6 for the partial sums of its chain of n, and the same
    for the partial sums over all chains.
    """
    chain = min(count, _LONGEST_CHAIN)
    chains = max(count / _LONGEST_CHAIN, 1.0)
    return math.sqrt(1 + max(chain - 1, 0) / 6 + (chains - 1) / 6)


class RoundoffHook(ABC):
    """A hook of the interpreter; subclasses say what one roundoff of a value is."""

    def __init__(self, rules: ClassRules, seed: Any) -> None:
        self._rules = rules
        self._seed = seed

    @abstractmethod
    def moved(self, value: jax.Array, roundoff: float, source: Stream) -> jax.Array:
        """Return the value with random roundoff; `roundoff` is its unit roundoff."""

    @abstractmethod
    def shaken(self, value: jax.Array, size: Any, source: Stream) -> jax.Array:
        """Return the value with noise of absolute size `size`, counted as a roundoff is."""

    def result(
        self, visit: Visit, inputs: Values, value: jax.Array, roundoff: float, source: Stream
    ) -> jax.Array:
        """Return an operator's result with roundoff."""
        return self.moved(value, roundoff, source)

    def __call__(self, visit: Visit, inputs: Values, default: Callable[..., Values]) -> Values:
        """Evaluate an operator with roundoff."""
        kind = rounds(visit.operation)
        if kind is Rounds.NOTHING:
            return default(*inputs)
        if kind is Rounds.PRODUCTS:
            inputs = self._products(visit, inputs)
        if kind is Rounds.SUMS:
            inputs = self._summands(visit, inputs)
        outputs = default(*inputs)
        if plain_name(visit.operation) == "scatter" and len(outputs) == 1:
            return (self._scattered(visit, inputs, outputs[0], default),)
        return tuple(
            self._written(visit, inputs, value, self._source(visit, f"result {place}"))
            for place, value in enumerate(outputs)
        )

    def _products(self, visit: Visit, inputs: Values) -> Values:
        sums = self._rules.roundoff.reduce * chained(summand_count(visit.operation, inputs))
        roundoff = max(self._rules.roundoff.dot, sums) * _ROOT_HALF
        return tuple(
            self._read(visit, value, place, roundoff) for place, value in enumerate(inputs)
        )

    def _summands(self, visit: Visit, inputs: Values) -> Values:
        places = summands(visit.operation)
        count = summand_count(visit.operation, inputs)
        roundoff = self._rules.roundoff.reduce * chained(count)
        return tuple(
            self._read(visit, value, place, roundoff) if place in places else value
            for place, value in enumerate(inputs)
        )

    def _read(self, visit: Visit, value: Any, place: int, roundoff: float) -> Any:
        # A narrow operand was rounded when it was written, and its products are exact in float32.
        if not is_float(value) or is_narrow(value.dtype):
            return value
        return self.moved(value, roundoff, self._source(visit, f"operand {place}"))

    def _written(self, visit: Visit, inputs: Values, value: Any, source: Stream) -> Any:
        if not is_float(value):
            return value
        return self.result(visit, inputs, value, unit_roundoff(value.dtype), source)

    def _scattered(
        self, visit: Visit, inputs: Values, value: Any, default: Callable[..., Values]
    ) -> Any:
        operand, indices, updates = inputs
        if not is_float(value):
            return value
        moved = self._written(visit, inputs, value, self._source(visit, "result 0"))
        size = partial_sums(lambda x: default(jnp.zeros_like(operand), indices, x)[0], updates)
        unit = unit_roundoff(value.dtype)
        shaken = self.shaken(moved, size * unit, self._source(visit, "partial sums"))
        # What no update reached was not rounded.
        return jnp.where(value == operand, value, shaken)

    def _source(self, visit: Visit, part: str) -> Stream:
        return stream(self._seed, f"{visit.name} {part}", visit.iterations)


def partial_sums(scatter: Callable[[Any], Any], updates: Any) -> jax.Array:
    """Return the root of the sum of squared partial sums of each element, on average over orders.

    `scatter` adds updates to zeros; it is used on the updates, their squares and on ones.
    """
    still = lax.stop_gradient(updates)
    count, total, squares = (
        scatter(x).astype(jnp.float32) for x in (jnp.ones_like(still), still, jnp.square(still))
    )
    size = jnp.sqrt(count * (jnp.square(total) / 3 + squares / 6))
    return jnp.where(count > 1, size, 0)
