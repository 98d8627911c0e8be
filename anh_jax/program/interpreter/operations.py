"""A stored program as plain data: functions, blocks and operations, without any MLIR object.

Values are numbered within their function. A region refers to the values around it by their numbers;
`Block.captures` lists those, so that a loop body can be evaluated by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

COMPOSITE = "stablehlo.composite"
SLICED_AT = "stablehlo.real_dynamic_slice"


@dataclass(frozen=True)
class TensorType:
    """Describe an array; a size of None is known only once the program is called."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def accepts(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Return whether an array of that shape and dtype is one of this type."""
        if len(shape) != len(self.shape) or dtype != self.dtype:
            return False
        return all(a is None or a == b for a, b in zip(self.shape, shape, strict=True))

    @property
    def text(self) -> str:
        """Return the type as error messages write it, such as `float32[?,8]`."""
        sizes = ",".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.name}[{sizes}]"


@dataclass(frozen=True)
class Operation:
    """Hold one operator of a program.

    Attributes:
        name: such as `stablehlo.dot_general`; a composite carries the name of what it composes.
        inputs, outputs: numbers of its operands and results.
        input_types, output_types: their declared types.
        attributes: numbers, text, tuples, arrays and the records of `attributes.py`, by name;
            those that StableHLO gives a default may be absent.
        regions: each the one block of a region.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_types: tuple[TensorType, ...]
    output_types: tuple[TensorType, ...]
    attributes: Mapping[str, Any]
    regions: tuple["Block", ...]

    @property
    def is_composite(self) -> bool:
        """Return whether a function of the program says what the operator computes."""
        return "decomposition" in self.attributes


@dataclass(frozen=True)
class Block:
    """Hold the operations of a function or region, in order.

    Attributes:
        arguments: the numbers its arguments get.
        operations: without the terminator.
        results: the numbers that the terminator returns.
        captures: the numbers used here that are defined around it.
        releases: for each operation, the numbers that nothing needs after it.
    """

    arguments: tuple[int, ...]
    argument_types: tuple[TensorType, ...]
    operations: tuple[Operation, ...]
    results: tuple[int, ...]
    captures: tuple[int, ...]
    releases: tuple[tuple[int, ...], ...]

    def captured(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """Return those of the values around the block that it uses, by number."""
        return {number: values[number] for number in self.captures}

    def producer(self, value: int) -> Operation | None:
        """Return the operation of this block that gives a value, None for an argument."""
        return next((x for x in self.operations if value in x.outputs), None)


@dataclass(frozen=True)
class Program:
    """Hold a program's functions by name; `main` is called from outside."""

    name: str
    functions: Mapping[str, Block]


def make_block(
    arguments: tuple[int, ...],
    argument_types: tuple[TensorType, ...],
    operations: tuple[Operation, ...],
    results: tuple[int, ...],
) -> Block:
    """Return the block, with what follows from its operations worked out."""
    defined = {*arguments, *(n for x in operations for n in x.outputs)}
    makers = {n: x for x in operations for n in x.outputs}
    uses = [_read_by(x, makers) for x in operations]
    captures = {n for used in (*uses, set(results)) for n in used} - defined
    alive = set(results)
    releases: list[tuple[int, ...]] = []
    for operation, used in zip(reversed(operations), reversed(uses), strict=True):
        touched = used | set(operation.outputs)
        releases.append(tuple(sorted(touched - alive)))
        alive |= used
    return Block(
        arguments,
        argument_types,
        operations,
        results,
        tuple(sorted(captures)),
        tuple(reversed(releases)),
    )


def _read_by(operation: Operation, makers: Mapping[int, Operation]) -> set[int]:
    # The sizes of a slice at a computed start are what was added to the start to give its limit.
    limit = makers.get(operation.inputs[2]) if operation.name == SLICED_AT else None
    return needed(operation) | set(limit.inputs if limit is not None else ())


def needed(operation: Operation) -> set[int]:
    """Return the numbers an operation reads, those its regions take from around it included."""
    return {*operation.inputs, *(n for block in operation.regions for n in block.captures)}
