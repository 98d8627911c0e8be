"""Reads programs that anybody may have written, so that to evaluate one ends and stays small.

Whoever checks a refutation runs a program that its maker chose: without loops, of so many operators
once all calls are written out, and without constants of terabytes in a few bytes of text.
"""

import math
from collections.abc import Mapping

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.interpret import InterpretedProgram, read_stored
from anh_jax.program.interpreter.operations import Block, Operation, Program
from anh_jax.program.module_checks import open_checked
from anh_jax.program.signature import ProgramSignature, StoredProgram

MOST_OPERATORS = 1 << 18
_LARGEST_CONSTANT = 1 << 24
# Of all constants together: each is an array once the program is read.
_MOST_CONSTANT = 1 << 26
_LOOPS = frozenset(("stablehlo.while", "stablehlo.if", "stablehlo.case"))


def stranger_program(signature: bytes, artifact: bytes) -> StoredProgram:
    """Return a program by its bytes, once its constants are known to be small.

    Raises:
        ProgramError: it is damaged, or holds constants that are too large to be read.
    """
    total = 0
    stored = StoredProgram(artifact, ProgramSignature.from_bytes(signature))
    with stablehlo.context():
        for operation in stablehlo.operations(open_checked(stored)):
            if operation.name == "stablehlo.constant":
                size = math.prod(operation.results[0].type.shape)
                if size > _LARGEST_CONSTANT:
                    raise ProgramError(f"program {stored.name}: a constant of {size:,} elements")
                total += size
                if total > _MOST_CONSTANT:
                    words = f"constants of more than {_MOST_CONSTANT:,} elements"
                    raise ProgramError(f"program {stored.name}: {words}")
    return stored


def read_straight(stored: StoredProgram) -> InterpretedProgram:
    """Read a program that can be evaluated straight through.

    Raises:
        ProgramError: it loops or branches, calls itself, or writes out to too many operators.
    """
    interpreted = read_stored(stored)
    check_straight(interpreted.program)
    return interpreted


def check_straight(program: Program) -> None:
    """Refuse a program with loops, branches, recursion or too many operators.

    Raises:
        ProgramError: says which.
    """
    sizes: dict[str, int] = {}
    for name in program.functions:
        _written_out(program.functions, name, sizes, ())
    if sizes["main"] > MOST_OPERATORS:
        raise ProgramError(f"program {program.name}: {sizes['main']:,} operators, too many")


def _written_out(
    functions: Mapping[str, Block], name: str, sizes: dict[str, int], callers: tuple[str, ...]
) -> int:
    if name in callers:
        raise ProgramError(f"function {name}: calls itself")
    if name not in sizes:
        total = 0
        for operation in _all(functions[name]):
            if operation.name in _LOOPS:
                raise ProgramError(f"operator {operation.name}: cannot be judged by itself")
            callee = operation.attributes.get("callee", operation.attributes.get("decomposition"))
            inner = (*callers, name)
            total += 1 if callee is None else _written_out(functions, callee, sizes, inner)
        sizes[name] = min(total, MOST_OPERATORS + 1)
    return sizes[name]


def _all(block: Block) -> list[Operation]:
    found = list(block.operations)
    for operation in block.operations:
        for region in operation.regions:
            found += _all(region)
    return found
