"""Which operators round, and where: moving, comparing and choosing numbers costs no digit."""

import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.bounds.perturbation import is_narrow
from anh_jax.program.interpreter.operations import Operation


class Rounds(enum.Enum):
    """What an operator rounds.

    NOTHING: its results are operands, or follow from them exactly. RESULT: each result once.
    PRODUCTS: a matrix product or convolution. SUMS: a reduction or scatter, its partial sums.
    """

    NOTHING = enum.auto()
    RESULT = enum.auto()
    PRODUCTS = enum.auto()
    SUMS = enum.auto()


_PRODUCTS = frozenset(("dot_general", "dot", "convolution", "dynamic_conv"))
# Place of the first summand among the operands of `n` results.
_SUMS = frozenset(("reduce", "reduce_window", "scatter", "select_and_scatter"))
_EXACT = frozenset(
    (
        *("abs", "and", "bitcast_convert", "broadcast", "broadcast_in_dim", "case", "ceil"),
        *("clamp", "collective_permute", "compare", "concatenate", "constant", "copy"),
        *("count_leading_zeros", "custom_call", "dynamic_broadcast_in_dim", "dynamic_gather"),
        *("dynamic_iota", "dynamic_pad", "dynamic_reshape", "dynamic_slice"),
        *("dynamic_update_slice", "floor", "gather", "get_dimension_size"),
        *("get_tuple_element", "if", "imag", "iota", "is_finite", "maximum", "minimum", "negate"),
        *("not", "optimization_barrier", "or", "pad", "popcnt", "real", "real_dynamic_slice"),
        *("reshape", "return", "reverse", "rng_bit_generator", "round_nearest_afz"),
        *("round_nearest_even", "select", "shift_left", "shift_right_arithmetic"),
        *("shift_right_logical", "sign", "slice", "sort", "transpose", "tuple", "while", "xor"),
        *("call", "top_k", "sharding_constraint"),
    )
)


def plain_name(operation: Operation) -> str:
    """Return an operator's name without its dialect."""
    return operation.name.rpartition(".")[2]


def rounds(operation: Operation) -> Rounds:
    """Tell what an operator rounds; one that is not known is taken to round its results."""
    name = plain_name(operation)
    if name in _EXACT:
        return Rounds.NOTHING
    if name in _PRODUCTS:
        return Rounds.PRODUCTS
    if name in _SUMS:
        return Rounds.NOTHING if _reducer_is_exact(operation) else Rounds.SUMS
    if name == "convert":
        return Rounds.RESULT if _loses_digits(operation) else Rounds.NOTHING
    return Rounds.RESULT


def summands(operation: Operation) -> range:
    """Return the places of the operands that a reduction or scatter adds up."""
    count = len(operation.output_types)
    match plain_name(operation):
        case "scatter":
            return range(count + 1, 2 * count + 1)
        case "select_and_scatter":
            return range(1, 2)
        case _:
            return range(count)


def summand_count(operation: Operation, inputs: tuple[Any, ...]) -> int:
    """Return how many numbers a product or reduction adds up for each of its results.

    1 for what adds one by one (scatters), whose partial sums are counted where they happen.
    """
    attributes = operation.attributes
    match plain_name(operation):
        case "dot_general":
            contracting = attributes["dot_dimension_numbers"].lhs_contracting
            return math.prod(inputs[0].shape[axis] for axis in contracting)
        case "convolution" | "dynamic_conv":
            features = inputs[1].shape[attributes["dimension_numbers"].rhs[0]]
            return math.prod(inputs[1].shape) // max(features, 1)
        case "reduce":
            return math.prod(inputs[0].shape[axis] for axis in attributes["dimensions"])
        case "reduce_window":
            return math.prod(int(n) for n in attributes["window_dimensions"])
        case _:
            return 1


def is_exact(operation: Operation, inputs: tuple[Any, ...], output: jax.Array) -> Any:
    """Return, for each element, whether this elementwise result is free of rounding.

    What is exact for these operands is so in every IEEE implementation; without this, noise would
    flip the masks of a dropout, whose uniform numbers are 1.x - 1. False where it is not known.
    """
    if len(inputs) != 2 or any(x.dtype != output.dtype for x in inputs):
        return False
    narrow = is_narrow(output.dtype)
    if output.dtype != jnp.float32 and not narrow:
        return False
    first, second = (x.astype(jnp.float32) for x in inputs)
    match plain_name(operation):
        case "add":
            return _sum_is_exact(first, second, output.astype(jnp.float32))
        case "subtract":
            return _sum_is_exact(first, -second, output.astype(jnp.float32))
        case "multiply":
            return _is_power_of_two(first) | _is_power_of_two(second)
        case "divide":
            return _is_power_of_two(second)
        case _:
            return False


def _sum_is_exact(first: jax.Array, second: jax.Array, total: jax.Array) -> jax.Array:
    # Knuth's two-sum: what was rounded away, itself exactly.
    other = total - first
    lost = (first - (total - other)) + (second - other)
    return lost == 0


def _is_power_of_two(value: jax.Array) -> jax.Array:
    bits = lax.bitcast_convert_type(value, jnp.uint32)
    return (bits & jnp.uint32(0x007FFFFF)) == 0


def _reducer_is_exact(operation: Operation) -> bool:
    return bool(operation.regions) and all(
        rounds(inner) is Rounds.NOTHING for inner in operation.regions[-1].operations
    )


def _loses_digits(operation: Operation) -> bool:
    (source,), (target,) = operation.input_types, operation.output_types
    if not jnp.issubdtype(target.dtype, jnp.floating):
        return False
    if source.dtype == jnp.bool_:
        return False
    digits = jnp.finfo(target.dtype).nmant + 1
    if jnp.issubdtype(source.dtype, jnp.floating):
        wider = jnp.finfo(source.dtype)
        return wider.nmant + 1 > digits or wider.maxexp > jnp.finfo(target.dtype).maxexp
    return jnp.iinfo(source.dtype).bits > digits
