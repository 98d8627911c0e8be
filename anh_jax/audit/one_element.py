"""Evaluates an elementwise program at one element: the others are never read, nor made.

From the wanted output back to what it needs. Each operator is evaluated by the interpreter's own
rule on arrays of one element; a program that needs another tensor, or mixes elements, is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.operations import Block, Operation, Program, TensorType
from anh_jax.program.interpreter.rules import RULES
from anh_jax.program.interpreter.scope import Scope

Array = NDArray[Any]
_CONSTANT, _CALL, _SLICE = "stablehlo.constant", "func.call", "stablehlo.slice"


def outputs_at(
    program: Program, inputs: Mapping[int, Array], outputs: Sequence[int]
) -> tuple[Array, ...]:
    """Return elements of outputs of `main`, by their places, from those of its arguments.

    `inputs` are by place: one element of a tensor, of shape (1, ...), or a whole small array of
    which the program takes slices. The program has been found to run straight through.

    Raises:
        ProgramError: an output needs an argument that is not given, or more than one element.
    """
    main = program.functions["main"]
    given = {main.arguments[place]: array for place, array in inputs.items()}
    frame = _Frame(program, main, given)
    return tuple(np.asarray(frame.value(main.results[place])) for place in outputs)


@dataclass
class _Frame:
    """One call of a function: its arguments, given or to be asked for in the frame around it."""

    program: Program
    block: Block
    known: dict[int, Any]
    around: "_Frame | None" = None
    operands: tuple[int, ...] = ()
    calls: dict[int, "_Frame"] = field(default_factory=dict[int, "_Frame"])
    makers: dict[int, tuple[Operation, int]] = field(default_factory=dict[int, Any])

    def __post_init__(self) -> None:
        for operation in self.block.operations:
            for place, number in enumerate(operation.outputs):
                self.makers[number] = (operation, place)

    def value(self, number: int) -> Any:
        if number not in self.known:
            self.known[number] = self._made(number)
        return self.known[number]

    def _made(self, number: int) -> Any:
        if number in self.block.arguments:
            if self.around is None:
                raise ProgramError(f"program {self.program.name}: needs another tensor")
            return self.around.value(self.operands[self.block.arguments.index(number)])
        operation, place = self.makers[number]
        if operation.name == _CALL:
            frame = self._call(operation)
            return frame.value(frame.block.results[place])
        if operation.name == _CONSTANT:
            return _one(operation)
        return self._evaluated(operation)[place]

    def _call(self, operation: Operation) -> "_Frame":
        first = operation.outputs[0]
        if first not in self.calls:
            block = self.program.functions[operation.attributes["callee"]]
            self.calls[first] = _Frame(self.program, block, {}, self, operation.inputs)
        return self.calls[first]

    def _evaluated(self, operation: Operation) -> tuple[Any, ...]:
        inputs = tuple(self.value(number) for number in operation.inputs)
        if operation.name == "sdy.sharding_constraint":
            return inputs
        rule = RULES.operators.get(operation.name)
        if rule is None or operation.regions:
            raise ProgramError(f"operator {operation.name}: is not elementwise")
        small = operation if operation.name == _SLICE else _shrunk(operation)
        scope = Scope(small, operation.name, self.block, self.known, _refused, _refused)
        with jax.enable_x64(True):
            found = rule(scope, *inputs)
        outputs = tuple(found) if isinstance(found, tuple | list) else (found,)
        for value, kind in zip(outputs, small.output_types, strict=True):
            if not kind.accepts(np.shape(value), value.dtype):
                raise ProgramError(f"operator {operation.name}: mixes elements")
        return outputs


def _shrunk(operation: Operation) -> Operation:
    kinds = tuple(map(_one_of, operation.output_types))
    return replace(operation, output_types=kinds)


def _one_of(kind: TensorType) -> TensorType:
    return TensorType((1,) * len(kind.shape), kind.dtype)


def _one(operation: Operation) -> Array:
    """Return a constant, or the one value that a tensor of equal constants has."""
    value = np.asarray(operation.attributes["value"])
    if value.ndim == 0 or value.size <= 1:
        return value
    first = value.ravel()[:1]
    if not (value == first).all():
        raise ProgramError(f"operator {_CONSTANT}: its elements differ")
    return first.reshape((1,) * value.ndim)


def _refused(*unused: Any) -> Any:
    raise ProgramError("a program that is evaluated at one element holds no regions")
