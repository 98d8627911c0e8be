"""Checks that `update` is elementwise, by reading its module.

Elementwise means: element i of an output depends on element i of arrays of its shape and on
scalars. Then rounding in the gradient cannot spread, and a verifier checks the update almost
exactly from the committed gradient (check B). Powers, exponentials and the like are left out on
purpose: what an update needs of them is a function of the step alone, computed on the host.
"""

import math
from typing import Any, Literal, TypeAlias

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.module_checks import open_checked
from anh_jax.program.signature import StoredProgram

UpdateKind: TypeAlias = Literal["elementwise", "bounded"]

_STRUCTURE = frozenset(
    ("func.func", "func.call", "func.return", "sdy.mesh", "sdy.sharding_constraint")
)
_ELEMENTWISE = frozenset(
    f"stablehlo.{name}"
    for name in (
        *("abs", "add", "and", "clamp", "compare", "constant", "convert", "divide"),
        *("is_finite", "maximum", "minimum", "multiply", "negate", "not", "or", "select"),
        *("sign", "sqrt", "subtract", "xor"),
    )
)


def check_elementwise(stored: StoredProgram) -> None:
    """Refuse an update that mixes the elements of an array.

    Raises:
        ProgramError: names the operator and what to do.
    """
    with stablehlo.context():
        for operation in stablehlo.operations(open_checked(stored)):
            if not _is_elementwise(operation):
                raise ProgramError(
                    f"program {stored.name}: operator {operation.name} is not elementwise;"
                    " compute constants on the host, and norms in `scalars`"
                )


def _is_elementwise(operation: Any) -> bool:
    name = operation.name
    if name in _STRUCTURE or name in _ELEMENTWISE:
        return True
    if name == "stablehlo.broadcast_in_dim":
        source, target = _shape(operation.operands[0]), _shape(operation.results[0])
        # StableHLO allows permuted dimensions here, which would be a transposition.
        dimensions = list(operation.attributes["broadcast_dimensions"])
        return math.prod(source) == 1 or (source == target and dimensions == sorted(dimensions))
    if name == "stablehlo.reshape":
        return math.prod(_shape(operation.operands[0])) == 1
    if name == "stablehlo.slice":
        # One constant out of the table's row; a slice of anything computed would mix elements.
        operand = operation.operands[0]
        from_argument = hasattr(operand, "arg_number")
        return from_argument and len(_shape(operand)) == 1 and _shape(operation.results[0]) == [1]
    return False


def _shape(value: Any) -> list[int]:
    return list(value.type.shape)
