"""What an operator's rule is given: the operation, the values around it, its regions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.operations import Block, Operation

Values: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Scope:
    """Hold one operation and what is around it while it is evaluated.

    Attributes:
        operation: what is evaluated.
        name: where it stands, for messages.
        block: the block it is in.
        values: the values of that block so far, by number.
        run: evaluates a region without showing its operators to a hook.
        decomposition: evaluates a composite's decomposition, likewise.
    """

    operation: Operation
    name: str
    block: Block
    values: Mapping[int, Any]
    run: Callable[[Block, Values, Mapping[int, Any]], Values]
    decomposition: Callable[..., Values]

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return an attribute, or the default that StableHLO gives it."""
        return self.operation.attributes.get(attribute, default)

    def region(self, index: int = 0) -> Callable[..., Values]:
        """Return the region as a function of its arguments."""
        block = self.operation.regions[index]
        around = block.captured(self.values)
        return lambda *inputs: self.run(block, inputs, around)

    def host(self, value: Any, what: str) -> tuple[int, ...]:
        """Return an operand that must be known while tracing, as integers.

        Raises:
            ProgramError: it depends on an argument.
        """
        if not isinstance(value, np.ndarray):
            raise self.error(f"its {what} depend on the arguments' values")
        return tuple(int(n) for n in value.reshape(-1))

    def error(self, words: str) -> ProgramError:
        """Return the error that says `words` of this operation."""
        return ProgramError(
            f"operator {self.operation.name} at {self.name}: {words}; the interpreter cannot"
            " evaluate it, write it with other operators"
        )


Rule: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Rules:
    """Hold how each operator is evaluated, by name.

    Attributes:
        operators: rules given a scope and the operands.
        composites: likewise, for composites that are not evaluated by their decomposition.
        structures: what evaluates further operators, given a `Site` of `evaluation.py`.
    """

    operators: Mapping[str, Rule]
    composites: Mapping[str, Rule]
    structures: Mapping[str, Callable[[Any], Values]]
