"""Puts roundoff at every operator of an interpreted program, by the rules of its numerics class.

Matrix products and convolutions read each operand with the class's roundoff, which models the
rounding of products and of what the multiplier drops, and costs no second product. Reductions and
scatters round each summand; what any operator writes it rounds once more. In a dtype narrower than
float32 the dtype's own rounding is what is stored.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax

from anh_jax.bounds.counter_hash import Stream, stream
from anh_jax.bounds.perturbation import is_float, is_narrow, unit_roundoff
from anh_jax.bounds.rounding_kinds import Rounds, plain_name, rounds, summands
from anh_jax.program.interpret import Visit
from attest.numerics_class import ClassRules

Values = tuple[Any, ...]
# Two operands share the rounding of a product.
_ROOT_HALF = math.sqrt(0.5)


class RoundoffHook(ABC):
    """A hook of the interpreter; subclasses say what one roundoff of a value is."""

    def __init__(self, rules: ClassRules, seed: Any) -> None:
        self._rules = rules
        self._seed = seed

    @abstractmethod
    def moved(self, value: jax.Array, roundoff: float, source: Stream) -> jax.Array:
        """Return the value with random roundoff; `roundoff` is its unit roundoff."""

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
        return tuple(
            self._written(visit, inputs, value, self._source(visit, f"result {place}"))
            for place, value in enumerate(outputs)
        )

    def _products(self, visit: Visit, inputs: Values) -> Values:
        roundoff = max(self._rules.roundoff.dot, self._rules.roundoff.reduce) * _ROOT_HALF
        return tuple(
            self._read(visit, value, place, roundoff) for place, value in enumerate(inputs)
        )

    def _summands(self, visit: Visit, inputs: Values) -> Values:
        places = summands(visit.operation)
        roundoff = self._rules.roundoff.reduce
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
        moved = self.result(visit, inputs, value, unit_roundoff(value.dtype), source)
        if plain_name(visit.operation) == "scatter" and len(visit.operation.output_types) == 1:
            # What no update reached was not rounded.
            return jax.numpy.where(value == inputs[0], value, moved)
        return moved

    def _source(self, visit: Visit, part: str) -> Stream:
        return stream(self._seed, f"{visit.name} {part}", visit.iterations)
