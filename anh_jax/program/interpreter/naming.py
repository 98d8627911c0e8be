"""From the name of an operator back to it: the inverse of what an evaluation tells its hooks."""

import re

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.operations import Block, Operation, Program

_INDEX = re.compile(r"/(0|[1-9]\d{0,9})")
_CASE = re.compile(r"\.case(0|[1-9]\d{0,9})")
_LOOP = ".do[*]"


def named_operation(program: Program, name: str) -> Operation:
    """Return the operator of that name, such as `main/10>callee/185.do[*]/12`.

    Raises:
        ProgramError: the program has no operator of that name.
    """
    if not name.startswith("main"):
        raise _unknown(program, name)
    block, rest = program.functions["main"], name.removeprefix("main")
    while True:
        index = _INDEX.match(rest)
        if index is None or int(index[1]) >= len(block.operations):
            raise _unknown(program, name)
        operation, rest = block.operations[int(index[1])], rest[index.end() :]
        if not rest:
            return operation
        callee = operation.attributes.get("callee", operation.attributes.get("decomposition"))
        case = _CASE.match(rest)
        inner: Block | None = None
        if callee is not None and rest.startswith(f">{callee}/"):
            inner, rest = program.functions[callee], rest.removeprefix(f">{callee}")
        elif rest.startswith(_LOOP) and operation.name == "stablehlo.while":
            inner, rest = operation.regions[1], rest.removeprefix(_LOOP)
        elif case is not None and int(case[1]) < len(operation.regions):
            inner, rest = operation.regions[int(case[1])], rest[case.end() :]
        if inner is None:
            raise _unknown(program, name)
        block = inner


def _unknown(program: Program, name: str) -> ProgramError:
    return ProgramError(f"program {program.name}: has no operator {name[:200]}")
