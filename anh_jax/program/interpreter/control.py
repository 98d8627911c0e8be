"""Calls, branches and what computes nothing.

Sharding constraints are dropped: they place arrays and change no value, and what is interpreted
runs on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.evaluation import Evaluation, Place
from anh_jax.program.interpreter.operations import COMPOSITE, Block, Operation
from anh_jax.program.interpreter.scope import Values


def _called(attribute: str) -> Callable[..., Values]:
    """Return the rule of an operator that is what the function named by an attribute gives."""

    def structure(
        evaluation: Evaluation,
        operation: Operation,
        inputs: Values,
        values: Mapping[int, Any],
        place: Place,
    ) -> Values:
        callee = operation.attributes[attribute]
        return evaluation.function(callee, inputs, place.inside(f">{callee}"))

    return structure


def _assertion(
    evaluation: Evaluation,
    operation: Operation,
    inputs: Values,
    values: Mapping[int, Any],
    place: Place,
) -> Values:
    holds = inputs[0]
    if not isinstance(holds, np.ndarray):
        raise ProgramError(
            f"program {evaluation.program.name}: the assertion at {place.name} depends on the"
            " arguments' values; only their sizes may be asserted"
        )
    if not bool(holds):
        words = operation.attributes.get("error_message", "sizes do not fit")
        raise ProgramError(f"program {evaluation.program.name}: {words}")
    return ()


def _unchanged(
    evaluation: Evaluation,
    operation: Operation,
    inputs: Values,
    values: Mapping[int, Any],
    place: Place,
) -> Values:
    return inputs


def _barrier(
    evaluation: Evaluation,
    operation: Operation,
    inputs: Values,
    values: Mapping[int, Any],
    place: Place,
) -> Values:
    arrays = [i for i, x in enumerate(inputs) if not isinstance(x, np.ndarray)]
    outputs = list(inputs)
    if arrays:
        passed = lax.optimization_barrier(tuple(inputs[i] for i in arrays))
        for place_of, value in zip(arrays, passed, strict=True):
            outputs[place_of] = value
    return tuple(outputs)


def _branches(
    evaluation: Evaluation,
    operation: Operation,
    inputs: Values,
    values: Mapping[int, Any],
    place: Place,
) -> Values:
    (index,) = inputs
    regions = operation.regions
    if operation.name == "stablehlo.if":
        # The first region of an `if` is the one for true; numbered as a switch counts.
        index = 1 - jnp.asarray(index, jnp.int32) if _traced(index) else np.int32(not index)
    if not _traced(index):
        chosen = int(index)
        chosen = chosen if 0 <= chosen < len(regions) else len(regions) - 1
        inside = place.inside(f".case{chosen}")
        captured = _captured(regions[chosen], values)
        return evaluation.block(regions[chosen], (), captured, inside)
    last = len(regions) - 1
    # Out of range means the last branch; jax's switch would clamp below zero to the first.
    index = lax.select(lax.lt(index, jnp.int32(0)), jnp.int32(last), index)
    hidden = evaluation.silent()
    branches = [
        _branch(hidden, x, values, place.inside(f".case{i}")) for i, x in enumerate(regions)
    ]
    outputs = tuple(lax.switch(index, branches))
    evaluation.keep(place, outputs)
    return outputs


def _branch(
    evaluation: Evaluation, block: Block, values: Mapping[int, Any], place: Place
) -> Callable[[], Values]:
    def branch() -> Values:
        outputs = evaluation.block(block, (), _captured(block, values), place)
        return tuple(jnp.asarray(x) for x in outputs)

    return branch


def _captured(block: Block, values: Mapping[int, Any]) -> dict[int, Any]:
    return {number: values[number] for number in block.captures}


def _traced(value: Any) -> bool:
    return isinstance(value, Tracer)


STRUCTURE: Mapping[str, Callable[..., Values]] = {
    "func.call": _called("callee"),
    # One that has no rule of its own is computed as the program says.
    COMPOSITE: _called("decomposition"),
    "sdy.sharding_constraint": _unchanged,
    "stablehlo.case": _branches,
    "stablehlo.custom_call": _assertion,
    "stablehlo.if": _branches,
    "stablehlo.optimization_barrier": _barrier,
}
