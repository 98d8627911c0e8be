"""Emulates a numerics class by what its multiplier does to operands, on any backend.

Matrix products and convolutions of float32 operands are rewritten; sums stay in float32. What is
not modelled: the order and the truncation of a tensor core's own additions. A class confusion (tf32
for f32, say) thus becomes testable where the hardware is not at hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anh_jax.bounds.rounding_kinds import Rounds, rounds
from anh_jax.errors import ProgramError
from anh_jax.program.functions import ID
from anh_jax.program.interpret import Visit, read_refined
from anh_jax.program.signature import StoredProgram
from anh_jax.program.tree import Tree
from attest.numerics_class import ClassRules

Values = tuple[Any, ...]
Product = Callable[..., Values]

# Exponent and explicit mantissa bits.
_TF32, _BF16 = (8, 10), (8, 7)


@dataclass(frozen=True)
class ClassEmulation:
    """A hook of the interpreter that computes products as `arithmetic` does."""

    arithmetic: Callable[[Values, Product], Values]

    def __call__(self, visit: Visit, inputs: Values, default: Product) -> Values:
        """Evaluate an operator in the class."""
        if rounds(visit.operation) is not Rounds.PRODUCTS:
            return default(*inputs)
        # A convolution whose padding depends on the batch size has it as a third operand.
        factors, padding = inputs[:2], inputs[2:]
        if any(x.dtype != jnp.float32 for x in factors):
            return default(*inputs)
        return self.arithmetic(factors, lambda *read: default(*read, *padding))


def emulation(rules: ClassRules | str) -> ClassEmulation:
    """Return the hook that emulates a class, by its rules or its name.

    Raises ProgramError where the class is none that can be emulated.
    """
    name = rules if isinstance(rules, str) else rules.name
    if name not in _ARITHMETIC:
        raise ProgramError(
            f"numerics class {name!r}: cannot be emulated; known are {', '.join(_ARITHMETIC)}"
        )
    return ClassEmulation(_ARITHMETIC[name])


class EmulatedGradient:
    """A stored gradient program, evaluated as a numerics class would; compiled per batch size."""

    def __init__(self, stored: StoredProgram, rules: ClassRules | str) -> None:
        self._stored = stored
        self._hook = emulation(rules)
        self._jitted: dict[int, Callable[..., Tree]] = {}

    def __call__(self, state_part: Tree, piece: Mapping[str, jax.Array], key: Any) -> Tree:
        """Return the sums over one piece of a batch, as the stored program gives them."""
        size = int(piece[ID].shape[0])
        if size not in self._jitted:
            program = read_refined(self._stored, batch=size)
            self._jitted[size] = jax.jit(lambda *inputs: program(*inputs, around=self._hook))
        return self._jitted[size](state_part, piece, key)


def emulated_gradient(stored: StoredProgram, rules: ClassRules | str) -> EmulatedGradient:
    """Return a stored gradient program in another class's arithmetic.

    Raises ProgramError where the class cannot be emulated.
    """
    return EmulatedGradient(stored, rules)


def _as_stored(inputs: Values, product: Product) -> Values:
    return product(*inputs)


def _tf32(inputs: Values, product: Product) -> Values:
    return product(*(_short(x, _TF32) for x in inputs))


def _bf16_f32acc(inputs: Values, product: Product) -> Values:
    return product(*(_short(x, _BF16) for x in inputs))


def _bf16(inputs: Values, product: Product) -> Values:
    return tuple(_short(x, _BF16) for x in _bf16_f32acc(inputs, product))


def _bf16x3(inputs: Values, product: Product) -> Values:
    """Split each operand into two bfloat16 and leave out the product of the low parts."""
    high = [_short(x, _BF16) for x in inputs]
    low = [_short(x - h, _BF16) for x, h in zip(inputs, high, strict=True)]
    (first,) = product(high[0], low[1])
    (second,) = product(low[0], high[1])
    (main,) = product(*high)
    # The small ones first, as the hardware's libraries do.
    return ((first + second) + main,)


def _short(value: jax.Array, digits: tuple[int, int]) -> jax.Array:
    exponent, mantissa = digits
    return lax.reduce_precision(value, exponent_bits=exponent, mantissa_bits=mantissa)


_ARITHMETIC: Mapping[str, Callable[[Values, Product], Values]] = {
    "f32": _as_stored,
    "tf32": _tf32,
    "bf16x3": _bf16x3,
    "bf16_f32acc": _bf16_f32acc,
    "bf16": _bf16,
}
