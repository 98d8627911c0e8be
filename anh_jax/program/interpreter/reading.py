"""Turns an MLIR module into plain data; afterwards no MLIR object is alive."""

from collections.abc import Iterator
from typing import Any

from anh_jax.errors import ProgramError
from anh_jax.program import module_checks, stablehlo
from anh_jax.program.interpreter.attributes import read_attributes
from anh_jax.program.interpreter.bindings import ir, refine, set_argument_types
from anh_jax.program.interpreter.constants import element_dtype
from anh_jax.program.interpreter.operations import (
    COMPOSITE,
    Block,
    Operation,
    Program,
    TensorType,
    make_block,
)
from anh_jax.program.signature import BATCH, StoredProgram
from anh_jax.program.tensors import mlir_type

_TERMINATORS = frozenset(("func.return", "stablehlo.return", "sdy.return"))


def stored_form(stored: StoredProgram) -> Program:
    """Read a stored program as it is, sizes symbolic and functions apart.

    Raises:
        ProgramError: the artifact is damaged, foreign, or not what its signature says.
    """
    with stablehlo.context():
        return _program(stored.name, module_checks.open_checked(stored))


def refined_form(stored: StoredProgram, batch: int | None) -> Program:
    """Read a stored program for one batch size: sizes static, one function.

    Raises:
        ProgramError: as `stored_form`; a batch is missing, not one the program accepts, or given
            to a program without one.
    """
    where = f"program {stored.name}"
    symbolic = any(BATCH in leaf.shape for leaf in stored.signature.inputs)
    if symbolic != (batch is not None) or (batch is not None and batch < 1):
        wanted = "a batch of at least 1" if symbolic else "no batch"
        raise ProgramError(f"{where}: refined with batch {batch}, the program takes {wanted}")
    types = [
        mlir_type(tuple(batch if n == BATCH else n for n in leaf.shape), leaf.dtype)  # pyright: ignore[reportArgumentType]
        for leaf in stored.signature.inputs
    ]
    with stablehlo.context():
        module = module_checks.open_checked(stored)
        set_argument_types(module, types)
        return _program(stored.name, refine(module, where=where))


def module_program(name: str, module: Any) -> Program:
    """Read a module that lies in memory; call inside `context()`.

    Raises:
        ProgramError: an element type or constant cannot be read.
    """
    return _program(name, module)


def _program(name: str, module: Any) -> Program:
    functions: dict[str, Block] = {}
    for operation in module.body.operations:
        if operation.operation.name == "func.func":
            symbol = ir.StringAttr(operation.operation.attributes["sym_name"]).value
            try:
                functions[symbol] = _Numbering().block(operation.operation.regions[0])
            except ProgramError as error:
                raise ProgramError(f"program {name}: function {symbol}: {error}") from None
    return Program(name, functions)


class _Numbering:
    """Numbers the values of one function in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, str, int], int] = {}

    def block(self, region: Any) -> Block:
        (block,) = region.blocks
        arguments = tuple(self._number(x) for x in block.arguments)
        operations: list[Operation] = []
        results: tuple[int, ...] = ()
        for operation in (x.operation for x in block.operations):
            if operation.name in _TERMINATORS:
                results = tuple(self._number(x) for x in operation.operands)
            else:
                operations.append(self._operation(operation))
        types = tuple(tensor_type(x) for x in block.arguments)
        return make_block(arguments, types, tuple(operations), results)

    def _operation(self, operation: Any) -> Operation:
        name, attributes = operation.name, read_attributes(operation)
        if name == COMPOSITE:
            name = attributes["name"]
        return Operation(
            name,
            tuple(self._number(x) for x in operation.operands),
            tuple(self._number(x) for x in operation.results),
            tuple(tensor_type(x) for x in operation.operands),
            tuple(tensor_type(x) for x in operation.results),
            attributes,
            tuple(self.block(x) for x in operation.regions),
        )

    def _number(self, value: Any) -> int:
        # Python wrappers of a value are new at each access: owner and position identify it.
        if isinstance(value, ir.BlockArgument):
            key = (value.owner, "argument", value.arg_number)
        else:
            key = (value.owner, "result", value.result_number)
        return self._numbers.setdefault(key, len(self._numbers))


def tensor_type(value: Any) -> TensorType:
    """Return the type of an MLIR value.

    Raises:
        ProgramError: it is no tensor, or of an element type that is not evaluated.
    """
    kind = value.type
    if not isinstance(kind, ir.RankedTensorType):
        raise ProgramError(f"a value of type {kind} is no tensor of known rank")
    sizes = (None if kind.is_dynamic_dim(i) else n for i, n in enumerate(kind.shape))
    return TensorType(tuple(sizes), element_dtype(str(kind.element_type)))


def all_operations(program: Program) -> Iterator[tuple[str, Operation]]:
    """Yield every operation with where it stands, such as `main/12.do/3`."""
    for name, block in program.functions.items():
        yield from _within(name, block)


def _within(where: str, block: Block) -> Iterator[tuple[str, Operation]]:
    for index, operation in enumerate(block.operations):
        place = f"{where}/{index}"
        yield place, operation
        for inner in operation.regions:
            yield from _within(f"{place}.region", inner)
