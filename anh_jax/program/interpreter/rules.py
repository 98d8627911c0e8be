"""All operators that the interpreter evaluates, by name; any other is refused when it is read."""

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter import (
    composites,
    control,
    elementwise,
    indexing,
    loops,
    movement,
    products,
    reductions,
    sorting,
)
from anh_jax.program.interpreter.operations import Program
from anh_jax.program.interpreter.reading import all_operations
from anh_jax.program.interpreter.scope import Rules

RULES = Rules(
    operators={
        **elementwise.RULES,
        **movement.RULES,
        **products.RULES,
        **indexing.RULES,
        **reductions.RULES,
        **sorting.RULES,
    },
    composites=composites.RULES,
    structures={**control.STRUCTURE, "stablehlo.while": loops.evaluate_while},
)


def check_operators(program: Program) -> None:
    """Refuse a program that holds an operator which the interpreter does not evaluate.

    Raises:
        ProgramError: names program, operator and place.
    """
    known = {*RULES.operators, *RULES.composites, *RULES.structures}
    for place, operation in all_operations(program):
        if operation.name not in known and not operation.is_composite:
            raise ProgramError(
                f"program {program.name}: operator {operation.name} at {place} is not one that the"
                " interpreter evaluates; write it with other operators, or declare the exact class"
            )
