"""Evaluates a program operator by operator in jax, showing each to a hook and to a recorder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.host import evaluate_on_host
from anh_jax.program.interpreter.operations import COMPOSITE, Block, Operation, Program
from anh_jax.program.interpreter.recording import Recorder
from anh_jax.program.interpreter.scope import Rule, Rules, Scope, Values

Loops: TypeAlias = Literal["scan", "while", "python"]


@dataclass(frozen=True)
class Visit:
    """Tell a hook which operator is evaluated.

    Attributes:
        operation: the operator as the program holds it.
        name: where it stands, the same in every evaluation: `main/10>callee/185.do[*]/12` is
            operation 12 in the body of the loop that is operation 185 of `callee`, which operation
            10 of `main` calls.
        iterations: counters of the loops around it, outermost first; integers where Python runs
            the loop, else traced uint32 scalars.
    """

    operation: Operation
    name: str
    iterations: tuple[Any, ...]


Hook: TypeAlias = Callable[[Visit, Values, Callable[..., Values]], Values]


@dataclass(frozen=True)
class Place:
    """Say where in a program evaluation is: a name prefix and the loops' counters."""

    name: str
    iterations: tuple[Any, ...] = ()

    def inside(self, suffix: str, *iterations: Any) -> Place:
        """Return the place `suffix` further in."""
        return Place(self.name + suffix, (*self.iterations, *iterations))


@dataclass(frozen=True)
class Evaluation:
    """Hold how a program is evaluated.

    Attributes:
        program: what is evaluated.
        rules: how each operator is.
        around: shown each operator that has an array operand, None for nobody.
        loops: how counted loops run.
        recorder: keeps the outputs of the operators that a hook would be shown.
    """

    program: Program
    rules: Rules
    around: Hook | None
    loops: Loops
    recorder: Recorder | None

    def main(self, inputs: Values) -> Values:
        """Return the outputs of `main`."""
        return self.block(self.program.functions["main"], inputs, {}, Place("main"))

    def block(
        self, block: Block, inputs: Values, around: Mapping[int, Any], place: Place
    ) -> Values:
        """Return a block's results, given its arguments and the values around it."""
        values: dict[int, Any] = {**around, **dict(zip(block.arguments, inputs, strict=True))}
        for index, operation in enumerate(block.operations):
            here = place.inside(f"/{index}")
            outputs = self._operation(block, operation, values, here)
            self._check(operation, outputs, here)
            values.update(zip(operation.outputs, outputs, strict=True))
            for number in block.releases[index]:
                del values[number]
        return tuple(values[number] for number in block.results)

    def function(self, name: str, inputs: Values, place: Place) -> Values:
        """Return what a function of the program gives."""
        return self.block(self.program.functions[name], inputs, {}, place)

    def quiet(self) -> Evaluation:
        """Return an evaluation that shows nothing to anybody."""
        return replace(self, around=None, recorder=None)

    def recording(self, recorder: Recorder | None) -> Evaluation:
        """Return an evaluation that shows operators to the hook, and records there or nowhere."""
        return replace(self, recorder=recorder)

    def _operation(
        self, block: Block, operation: Operation, values: Mapping[int, Any], place: Place
    ) -> Values:
        inputs = tuple(values[number] for number in operation.inputs)
        if (structure := self._structure(operation)) is not None:
            return structure(Site(self, operation, inputs, values, place))
        known = evaluate_on_host(operation, inputs)
        if known is not None:
            return (known,)
        rule = self.rules.composites.get(operation.name) or self.rules.operators[operation.name]
        scope = Scope(
            operation, place.name, block, values, self._run, self._decomposition(operation)
        )

        default = partial(_evaluated, rule, scope)
        if all(isinstance(x, np.ndarray) for x in inputs):
            return default(*inputs)
        return self._shown(operation, inputs, default, place)

    def _shown(
        self, operation: Operation, inputs: Values, default: Callable[..., Values], place: Place
    ) -> Values:
        if operation.name == "stablehlo.get_dimension_size":
            return default(*inputs)
        if self.around is None:
            outputs = default(*inputs)
        else:
            visit = Visit(operation, place.name, place.iterations)
            outputs = tuple(self.around(visit, inputs, default))
        self.keep(place, outputs)
        return outputs

    def keep(self, place: Place, outputs: Values) -> None:
        """Record an operator's outputs where somebody asked for it."""
        if self.recorder is not None:
            self.recorder.keep(place.name, place.iterations, outputs)

    def _structure(self, operation: Operation) -> Callable[[Site], Values] | None:
        unknown = operation.name not in self.rules.composites
        name = COMPOSITE if operation.is_composite and unknown else operation.name
        return self.rules.structures.get(name)

    def _run(self, block: Block, inputs: Values, around: Mapping[int, Any]) -> Values:
        return self.quiet().block(block, inputs, around, Place("region"))

    def _decomposition(self, operation: Operation) -> Callable[..., Values]:
        return partial(self._decomposed, operation)

    def _decomposed(self, operation: Operation, *inputs: Any) -> Values:
        name = operation.attributes["decomposition"]
        return self.quiet().function(name, inputs, Place(name))

    def _check(self, operation: Operation, outputs: Values, place: Place) -> None:
        if len(outputs) != len(operation.output_types):
            raise self._unlike(operation, place, f"{len(outputs)} results", "other")
        for value, kind in zip(outputs, operation.output_types, strict=True):
            if not kind.accepts(jax.numpy.shape(value), value.dtype):
                found = f"{value.dtype}{list(jax.numpy.shape(value))}"
                raise self._unlike(operation, place, found, kind.text)

    def _unlike(self, operation: Operation, place: Place, found: str, declared: str) -> Exception:
        return ProgramError(
            f"program {self.program.name}: operator {operation.name} at {place.name} evaluates to"
            f" {found}, the program declares {declared}; a hook must keep shapes and dtypes"
        )


@dataclass(frozen=True)
class Site:
    """Hold an operator that evaluates further ones, and what is around it.

    Attributes:
        evaluation: how the program is evaluated here.
        operation, inputs: the operator and its operands.
        values: the values of its block so far, by number, which its regions may use.
        place: where it stands.
    """

    evaluation: Evaluation
    operation: Operation
    inputs: Values
    values: Mapping[int, Any]
    place: Place


# Apart from where it is used: a function made anew for each operator costs more than most do.
def _evaluated(rule: Rule, scope: Scope, *operands: Any) -> Values:
    found = rule(scope, *operands)
    return tuple(found) if isinstance(found, tuple | list) else (found,)
