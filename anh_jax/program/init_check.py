"""Tells whether `init` gives the same bits on every backend, by reading its module.

Exact means: bits drawn and moved by integer operators, turned into floats by conversions that lose
nothing, scaled by powers of two. Everything else may round differently somewhere.
"""

import math
import re
from typing import Any, Literal

import numpy as np

from anh_jax.program import stablehlo
from anh_jax.program.module_checks import open_checked
from anh_jax.program.signature import StoredProgram

InitKind = Literal["exact", "class"]

# Whatever the element type, these copy bits.
_MOVES = frozenset(
    f"stablehlo.{name}"
    for name in (
        *("bitcast_convert", "broadcast_in_dim", "case", "concatenate", "constant", "reshape"),
        *("dynamic_slice", "dynamic_update_slice", "gather", "if", "optimization_barrier", "pad"),
        *("return", "reverse", "select", "slice", "transpose", "while", "abs", "negate"),
    )
) | frozenset(("func.func", "func.call", "func.return", "sdy.mesh", "sdy.sharding_constraint"))
_INTEGER = re.compile(r"u?i(\d+)")
# Widest integer, in bits, that each float type holds without rounding.
_EXACT_BITS = {"bf16": 8, "f16": 8, "f32": 16, "f64": 32}
_LARGEST_EXPONENT = 64


def init_kind(stored: StoredProgram) -> InitKind:
    """Return `exact` where every operator of the program is exact on every backend, else `class`.

    Raises:
        ProgramError: the stored program is damaged.
    """
    return "class" if first_inexact(stored) else "exact"


def first_inexact(stored: StoredProgram) -> str | None:
    """Return the name of the first operator that may round differently on some backend."""
    with stablehlo.context():
        for operation in stablehlo.operations(open_checked(stored)):
            if not _exact(operation):
                return operation.name
    return None


def _exact(operation: Any) -> bool:
    sources = [stablehlo.element_type(x) for x in operation.operands]
    targets = [stablehlo.element_type(x) for x in operation.results]
    if operation.name in _MOVES or all(_INTEGER.fullmatch(x) for x in (*sources, *targets)):
        return True
    if operation.name == "stablehlo.convert":
        return _exact_conversion(sources[0], targets[0])
    if operation.name == "stablehlo.multiply":
        return any(_power_of_two(operand) for operand in operation.operands)
    return False


def _exact_conversion(source: str, target: str) -> bool:
    integer = _INTEGER.fullmatch(source)
    if integer is None:
        return source == target
    return int(integer.group(1)) <= _EXACT_BITS.get(target, 0)


def _power_of_two(value: Any) -> bool:
    owner = getattr(value.owner, "operation", value.owner)
    name = getattr(owner, "name", None)
    if name == "stablehlo.broadcast_in_dim":
        return _power_of_two(owner.operands[0])
    if name != "stablehlo.constant":
        return False
    numbers = np.asarray(owner.attributes["value"], dtype=np.float64)
    fractions = {math.frexp(abs(x))[0] for x in numbers.reshape(-1).tolist()}
    exponents = [abs(math.frexp(x)[1]) for x in numbers.reshape(-1).tolist()]
    return fractions == {0.5} and max(exponents) <= _LARGEST_EXPONENT
