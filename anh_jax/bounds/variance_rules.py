"""How each jax primitive passes variance on.

What moves numbers moves their variances; what is linear weighs them by squared coefficients; any
other function of single elements weighs them by its squared slopes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from anh_jax.bounds.perturbation import is_float
from anh_jax.bounds.roundoff_hook import COUNTED, chained, partial_sums
from anh_jax.errors import ProgramError
from attest.numerics_class import ClassRules

# Masks are infinities, or the largest numbers there are, whose square is an infinity.
_ENDLESS = 1e18


@dataclass(frozen=True)
class Varied:
    """A value and the variance of its roundoff, float32; None where it is exact."""

    value: Any
    variance: Any

    def square(self) -> jax.Array:
        """Return the variance as an array."""
        if self.variance is None:
            return jnp.zeros(jnp.shape(self.value), jnp.float32)
        return self.variance

    def pair(self) -> tuple[Any, Any]:
        """Return value and variance for a loop to carry; integers carry none."""
        return (jnp.asarray(self.value), self.square() if is_float(self.value) else None)

    def plus(self, variance: Any) -> "Varied":
        """Return the value with more variance."""
        return Varied(self.value, self.square() + variance)


@dataclass(frozen=True)
class Slopes:
    """One equation with its operands, its results and the class it is rounded in."""

    equation: JaxprEqn
    inputs: list[Varied]
    outputs: list[Any]
    rules: ClassRules

    def again(self, *operands: Any, **changes: Any) -> Any:
        """Return the primitive of other operands."""
        return self.equation.primitive.bind(*operands, **{**self.equation.params, **changes})

    def rounded(self, variance: Any) -> list[Varied]:
        """Return the one result with a variance and the rounding of its own."""
        (output,) = self.outputs
        return [Varied(output, variance + own_rounding(output, self.rules))]


Rule: TypeAlias = Callable[[Slopes], list[Varied]]


def own_rounding(output: Any, rules: ClassRules) -> jax.Array:
    """Return the variance of rounding a result once; a mask's infinity has none."""
    own = jnp.square(_wide(output) * rules.roundoff.reduce) * COUNTED**2
    return jnp.where(jnp.abs(_wide(output)) < _ENDLESS, own, 0)


def _wide(value: Any) -> jax.Array:
    return jnp.asarray(value).astype(jnp.float32)


def _moved(slopes: Slopes) -> list[Varied]:
    """Move variances as the values are moved; indices and predicates stay what they are."""
    (output,) = slopes.outputs
    operands = [x.square() if is_float(x.value) else x.value for x in slopes.inputs]
    changes = {"fill_value": 0} if "fill_value" in slopes.equation.params else {}
    if not is_float(output):
        return [Varied(output, None)]
    return [Varied(output, slopes.again(*operands, **changes))]


def _passed(slopes: Slopes) -> list[Varied]:
    pairs = zip(slopes.inputs, slopes.outputs, strict=True)
    return [Varied(value, source.variance) for source, value in pairs]


def _converted(slopes: Slopes) -> list[Varied]:
    (output,), (source,) = slopes.outputs, slopes.inputs
    if is_float(output):
        return [Varied(output, source.square())]
    if source.variance is not None and is_float(source.value):
        raise _blind(slopes)
    return [Varied(output, None)]


def _elementwise(slopes: Slopes) -> list[Varied]:
    variance, moved = jnp.float32(0), [x.value for x in slopes.inputs]
    for place, operand in enumerate(slopes.inputs):
        if operand.variance is None or not is_float(operand.value):
            continue

        def along(x: Any, place: int = place) -> Any:
            return slopes.again(*moved[:place], x, *moved[place + 1 :])

        ones = jnp.ones_like(operand.value)
        _, slope = jax.jvp(along, (jnp.asarray(operand.value),), (ones,))
        # A slope may be infinite where nothing varies.
        part = jnp.square(_wide(slope)) * operand.variance
        variance = variance + jnp.where(operand.variance == 0, 0, part)
    return slopes.rounded(variance)


def _exact(slopes: Slopes) -> list[Varied]:
    (found,) = _elementwise(slopes)
    (output,) = slopes.outputs
    return [Varied(output, jnp.maximum(found.square() - own_rounding(output, slopes.rules), 0))]


def _product(slopes: Slopes) -> list[Varied]:
    first, second = slopes.inputs
    squares = [jnp.square(_wide(x.value)) for x in slopes.inputs]
    changes = {"preferred_element_type": jnp.dtype(jnp.float32)}
    deviation = max(
        slopes.rules.roundoff.dot, slopes.rules.roundoff.reduce * chained(_count(slopes))
    )
    own = [x * deviation**2 * COUNTED**2 / 2 for x in squares]
    return slopes.rounded(
        slopes.again(first.square() + own[0], squares[1], **changes)
        + slopes.again(squares[0], second.square() + own[1], **changes)
    )


def _sum(slopes: Slopes) -> list[Varied]:
    (summand,) = slopes.inputs
    changes = {"out_sharding": None} if "out_sharding" in slopes.equation.params else {}
    return slopes.rounded(slopes.again(_summand(slopes, summand), **changes))


def _summand(slopes: Slopes, summand: Varied) -> jax.Array:
    deviation = slopes.rules.roundoff.reduce * chained(_count(slopes))
    own = jnp.square(_wide(summand.value) * deviation) * COUNTED**2
    return summand.square() + own


def _count(slopes: Slopes) -> int:
    """Return how many numbers are added up for a result."""
    params, first = slopes.equation.params, slopes.inputs[0].value
    match slopes.equation.primitive.name:
        case "dot_general":
            return math.prod(first.shape[axis] for axis in params["dimension_numbers"][0][0])
        case "conv_general_dilated":
            kernel = slopes.inputs[1].value
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            return kernel.size // max(features, 1)
        case "reduce_sum":
            return math.prod(first.shape[axis] for axis in params["axes"])
        case _:
            return 1


def _scattered(slopes: Slopes) -> list[Varied]:
    operand, indices, updates = slopes.inputs
    (output,) = slopes.outputs
    variance = slopes.again(operand.square(), indices.value, _summand(slopes, updates))
    size = partial_sums(
        lambda x: slopes.again(jnp.zeros_like(operand.value), indices.value, x), updates.value
    )
    own = own_rounding(output, slopes.rules)
    own = own + jnp.square(size * slopes.rules.roundoff.reduce) * COUNTED**2
    return [Varied(output, variance + jnp.where(output == operand.value, 0, own))]


def _extreme(slopes: Slopes) -> list[Varied]:
    """Give a maximum the mean variance of the elements that reach it."""
    (operand,), (output,) = slopes.inputs, slopes.outputs
    axes = slopes.equation.params["axes"]
    reached = operand.value == jnp.expand_dims(output, axes)
    total = jnp.sum(jnp.where(reached, operand.square(), 0), axes)
    return [Varied(output, total / jnp.maximum(jnp.sum(reached, axes, dtype=jnp.float32), 1))]


def _still(slopes: Slopes) -> list[Varied]:
    return [Varied(x, None) for x in slopes.outputs]


def _refused(slopes: Slopes) -> list[Varied]:
    if any(x.variance is not None for x in slopes.inputs):
        raise _blind(slopes)
    return _still(slopes)


def _blind(slopes: Slopes) -> ProgramError:
    return ProgramError(
        f"operator {slopes.equation.primitive.name}: its slope is silently zero; use noise"
    )


def _each(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_each(
        _moved,
        "reshape transpose broadcast_in_dim slice dynamic_slice dynamic_update_slice concatenate"
        " gather pad rev squeeze expand_dims select_n copy reduce_precision scatter"
        " stop_gradient",
    ),
    **_each(
        _elementwise,
        "add add_any sub mul div rem pow integer_pow exp exp2 expm1 log log1p logistic tanh sqrt"
        " rsqrt cbrt sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh erf erfc erf_inv"
        " lgamma digamma square",
    ),
    **_each(_exact, "neg abs max min clamp"),
    **_each(_product, "dot_general conv_general_dilated"),
    **_each(_sum, "reduce_sum cumsum reduce_window_sum"),
    **_each(_still, "eq ne lt le gt ge is_finite argmax argmin iota sign and or xor not"),
    **_each(_refused, "floor ceil round bitcast_convert_type nextafter"),
    "optimization_barrier": _passed,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    "scatter-add": _scattered,
    "scatter_add": _scattered,
    "convert_element_type": _converted,
}
