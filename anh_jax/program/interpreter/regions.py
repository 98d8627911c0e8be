"""Recognises regions: one operator of the two arguments, or what this jax writes for a function."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from anh_jax.program.interpreter.operations import Block


def monoid(block: Block) -> str | None:
    """Return the operator that the region applies to its two arguments, None for anything else."""
    if len(block.operations) != 1 or len(block.arguments) != 2:
        return None
    (operation,) = block.operations
    if operation.regions or operation.outputs != block.results:
        return None
    return operation.name if operation.inputs == block.arguments else None


def chooses_update(block: Block) -> bool:
    """Return whether the region gives its second argument unchanged."""
    return not block.operations and block.results == block.arguments[1:]


def canonical(block: Block, around: Mapping[int, Any]) -> Any:
    """Return a form equal for regions that compute the same by the same operators.

    Values are described by how they are computed, so neither numbering nor order of independent
    operations counts; constants count by their bits, wherever they stand.
    """
    forms: dict[int, Any] = {n: ("argument", i) for i, n in enumerate(block.arguments)}
    for number in block.captures:
        forms[number] = _constant(around[number])
    for operation in block.operations:
        if operation.name == "stablehlo.constant":
            form = _constant(operation.attributes["value"])
        else:
            attributes = tuple(sorted((k, str(v)) for k, v in operation.attributes.items()))
            form = (operation.name, attributes, tuple(forms[n] for n in operation.inputs))
        for place, number in enumerate(operation.outputs):
            forms[number] = form if len(operation.outputs) == 1 else (place, form)
    return tuple(forms[n] for n in block.results)


def _constant(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return ("around", id(value))
    return ("constant", value.dtype.name, value.shape, value.tobytes())
