"""What this jax writes for its own sort and argmax, to recognise them by.

Their regions (comparators that order NaN and zeros, choices between pairs) have no derivative as
they stand. jax has, for the functions they come from.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jax import lax

from anh_jax.program import stablehlo
from anh_jax.program.interpreter.operations import Block, Program
from anh_jax.program.interpreter.reading import module_program
from anh_jax.program.interpreter.regions import canonical


def sort_keys(block: Block, around: Mapping[int, Any], dtypes: tuple[str, ...]) -> int | None:
    """Return by how many of its operands the comparator orders, None where jax writes no such."""
    form = canonical(block, around)
    counts = range(1, len(dtypes) + 1)
    return next((n for n in counts if form == _sort_form(dtypes, n)), None)


def index_choice(block: Block, around: Mapping[int, Any], dtypes: tuple[str, str]) -> str | None:
    """Return `argmax` or `argmin` where the region chooses between pairs of value and index so."""
    form = canonical(block, around)
    return next((name for name in _CHOICES if form == _choice_form(name, *dtypes)), None)


@functools.cache
def _sort_form(dtypes: tuple[str, ...], keys: int) -> Any:
    def function(*operands: Any) -> Any:
        return lax.sort(operands, num_keys=keys)

    return _form("stablehlo.sort", function, dtypes)


@functools.cache
def _choice_form(name: str, dtype: str, index: str) -> Any:
    def function(operand: Any) -> Any:
        return _CHOICES[name](operand, 0, jnp.dtype(index))

    return _form("stablehlo.reduce", function, (dtype,))


def _form(operator: str, function: Callable[..., Any], dtypes: tuple[str, ...]) -> Any:
    shapes = [jax.ShapeDtypeStruct((4,), jnp.dtype(dtype)) for dtype in dtypes]
    with jax.enable_x64(True):
        # The form that programs are stored in: the cpu one differs in places.
        exported = jax_export.export(jax.jit(function), platforms=["cuda"])(*shapes)
    with stablehlo.context():
        module = stablehlo.parse(exported.mlir_module_serialized, where="jax's own lowering")
        program = module_program("reference", module)
    return _region_form(program, operator)


def _region_form(program: Program, operator: str) -> Any:
    for block in program.functions.values():
        for operation in block.operations:
            if operation.name == operator:
                (region,) = operation.regions
                makers = {n: block.producer(n) for n in region.captures}
                around = {
                    n: maker.attributes.get("value") if maker else None
                    for n, maker in makers.items()
                }
                return canonical(region, around)
    return None


_CHOICES: Mapping[str, Callable[..., Any]] = {"argmax": lax.argmax, "argmin": lax.argmin}
