"""Which operator feeds which: read from a stored program alone, by tracing it without computing.

Every operator that a recording holds is met in the order of execution, with the source of each of
its operands: a result of an operator before it, an argument of the program, or a small value that
the program itself gives. Of other values (a barrier, a counter) nothing is said.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.audit.recording import value_of
from anh_jax.audit.stranger_program import MOST_OPERATORS
from anh_jax.errors import ProgramError
from anh_jax.program.interpret import InterpretedProgram, Visit
from anh_jax.program.interpreter.evaluation import Evaluation, Place
from anh_jax.program.interpreter.operations import Block, Operation, Program
from anh_jax.program.interpreter.rules import RULES

# Sizes of a batch that is only traced: what depends on them is no property of the program. The
# large one is there for what no small one shows, such as a quarter of the batch, or at least 8.
_BATCHES = (2, 3, 8191)
# Most that is evaluated at all, sizes and calls included, of which no recording holds an entry.
_MOST_STEPS = 1 << 22
_LARGEST = 1 << 34
_CONSTANT, _WHILE = "stablehlo.constant", "stablehlo.while"


@dataclass(frozen=True)
class Result:
    """Result number `place` of the operator at `index`."""

    index: int
    place: int


@dataclass(frozen=True)
class Argument:
    """The program's input at `place` in its signature."""

    place: int


@dataclass(frozen=True)
class Known:
    """A value that the program gives by itself, by its digest."""

    digest: str


Source = Result | Argument | Known | None


@dataclass(frozen=True)
class Wired:
    """One operator in the order of execution: name, iterations, where each operand comes from."""

    name: str
    iterations: tuple[int, ...]
    operands: tuple[Source, ...]
    outputs: int


@dataclass(frozen=True)
class Wiring:
    """All operators of one evaluation, and where the program's outputs come from."""

    operators: tuple[Wired, ...]
    results: tuple[Source, ...]


def wiring(interpreted: InterpretedProgram) -> Wiring:
    """Return how a program's operators feed one another, whatever the batch.

    Raises:
        ProgramError: its order depends on values or on the batch, or it runs too long.
    """
    check_loops(interpreted.program)
    found = _traced(interpreted, _BATCHES[0])
    for batch in _BATCHES[1:]:
        other = _traced(interpreted, batch)
        if [_place(x) for x in found.operators] != [_place(x) for x in other.operators]:
            raise ProgramError(
                f"program {interpreted.program.name}: its order depends on the batch"
            )
        found = _common(found, other)
    return found


def _common(first: Wiring, second: Wiring) -> Wiring:
    """Return what is the same in two wirings of the same operators."""
    operators = tuple(
        Wired(a.name, a.iterations, tuple(map(_same, a.operands, b.operands)), a.outputs)
        for a, b in zip(first.operators, second.operators, strict=True)
    )
    return Wiring(operators, tuple(map(_same, first.results, second.results)))


def check_loops(program: Program) -> None:
    """Refuse loops that count far, as far as it is written in the program.

    Raises:
        ProgramError: names the number.
    """
    for block in program.functions.values():
        constants = {
            number: operation
            for inner in _blocks(block)
            for operation in inner.operations
            if operation.name == _CONSTANT
            for number in operation.outputs
        }
        for inner in _blocks(block):
            for operation in inner.operations:
                if operation.name == _WHILE:
                    _check_loop(operation, constants)


def _check_loop(loop: Operation, constants: dict[int, Operation]) -> None:
    condition = loop.regions[0]
    numbers = {*loop.inputs, *(n for x in condition.operations for n in x.inputs)}
    for operation in (constants[n] for n in numbers if n in constants):
        value = np.asarray(operation.attributes["value"])
        if value.dtype.kind in "iu" and value.size == 1 and int(value) > MOST_OPERATORS:
            raise ProgramError(f"operator {_WHILE}: counts to {int(value):,}, too far to follow")


def _traced(interpreted: InterpretedProgram, batch: int) -> Wiring:
    tracing = _Tracing()
    program, main = interpreted.program, interpreted.program.functions["main"]
    kinds = main.argument_types
    shapes = [tuple(batch if n is None else n for n in kind.shape) for kind in kinds]
    results: list[Source] = []

    def trace(*inputs: Any) -> Any:
        for place, array in enumerate(inputs):
            tracing.met(array, Argument(place))
        evaluation = _Counted(program, RULES, tracing.hook, "python", None, tracing)
        results.extend(map(tracing.source, evaluation.main(inputs)))
        return ()

    leaves = [jax.ShapeDtypeStruct(s, kind.dtype) for s, kind in zip(shapes, kinds, strict=True)]
    with jax.enable_x64(True):
        jax.eval_shape(trace, *leaves)
    return Wiring(tuple(tracing.operators), tuple(results))


class _Tracing:
    """Remembers every value that was met by its identity; all are kept, so that none is reused."""

    def __init__(self) -> None:
        self.operators: list[Wired] = []
        self._sources: dict[int, Source] = {}
        self._kept: list[Any] = []
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count what is evaluated, shown or not; ProgramError where it is too much to end soon."""
        self._steps += steps
        if self._steps > _MOST_STEPS:
            raise ProgramError(
                f"more than {_MOST_STEPS:,} operators, sizes and calls are evaluated"
            )

    def met(self, array: Any, source: Source) -> None:
        self._sources.setdefault(id(array), source)
        self._kept.append(array)

    def source(self, array: Any) -> Source:
        if id(array) in self._sources:
            return self._sources[id(array)]
        return Known(value_of(array).digest()) if isinstance(array, np.ndarray) else None

    def hook(
        self, visit: Visit, inputs: Sequence[Any], default: Callable[..., tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        index = len(self.operators)
        if index >= MOST_OPERATORS:
            raise ProgramError(f"operator {visit.name}: more than {MOST_OPERATORS:,} are evaluated")
        operation = visit.operation
        if any(math.prod(n or 1 for n in x.shape) > _LARGEST for x in operation.output_types):
            raise ProgramError(f"operator {visit.name}: its result is too large to be one")
        # What an operator passes on as it is would otherwise keep the name of what it took.
        outputs = tuple(default(*inputs))
        operands = tuple(map(self.source, inputs))
        iterations = tuple(int(n) for n in visit.iterations)
        self.operators.append(Wired(visit.name, iterations, operands, len(outputs)))
        for place, output in enumerate(outputs):
            self._sources[id(output)] = Result(index, place)
            self._kept.append(output)
        return outputs


@dataclass(frozen=True)
class _Counted(Evaluation):
    """An evaluation that ends: hooks see neither calls nor what the host computes of sizes."""

    tracing: _Tracing

    def block(
        self, block: Block, inputs: Sequence[Any], around: Mapping[int, Any], place: Place
    ) -> tuple[Any, ...]:
        self.tracing.spend(1 + len(block.operations))
        return super().block(block, tuple(inputs), around, place)


def _same(first: Source, second: Source) -> Source:
    return first if first == second else None


def _place(wired: Wired) -> tuple[object, ...]:
    return (wired.name, wired.iterations, len(wired.operands), wired.outputs)


def _blocks(block: Block) -> Iterator[Block]:
    waiting = [block]
    while waiting:
        inner = waiting.pop()
        yield inner
        waiting += [region for x in inner.operations for region in x.regions]
