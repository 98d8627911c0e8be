"""Calls, branches and what computes nothing.

Sharding constraints are dropped: they place arrays and change no value, and what is interpreted
runs on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.evaluation import Evaluation, Site
from anh_jax.program.interpreter.operations import COMPOSITE
from anh_jax.program.interpreter.scope import Values


def _called(attribute: str) -> Callable[[Site], Values]:
    """Return the rule of an operator that is what the function named by an attribute gives."""

    def structure(site: Site) -> Values:
        callee = site.operation.attributes[attribute]
        return site.evaluation.function(callee, site.inputs, site.place.inside(f">{callee}"))

    return structure


def _assertion(site: Site) -> Values:
    (holds, *_) = site.inputs
    where = f"program {site.evaluation.program.name}"
    if not isinstance(holds, np.ndarray):
        raise ProgramError(
            f"{where}: the assertion at {site.place.name} depends on the arguments' values;"
            " only their sizes may be asserted"
        )
    if not bool(holds):
        words = site.operation.attributes.get("error_message", "sizes do not fit")
        raise ProgramError(f"{where}: {words}")
    return ()


def _unchanged(site: Site) -> Values:
    return site.inputs


def _barrier(site: Site) -> Values:
    outputs = list(site.inputs)
    arrays = [i for i, x in enumerate(outputs) if not isinstance(x, np.ndarray)]
    if arrays:
        passed = lax.optimization_barrier(tuple(outputs[i] for i in arrays))
        for place_of, value in zip(arrays, passed, strict=True):
            outputs[place_of] = value
    return tuple(outputs)


def _branches(site: Site) -> Values:
    (index,) = site.inputs
    regions = site.operation.regions
    last = len(regions) - 1
    if site.operation.name == "stablehlo.if":
        # The first region of an `if` is the one for true; numbered as a switch counts.
        index = 1 - jnp.asarray(index, jnp.int32) if _traced(index) else np.int32(not index)
    if not _traced(index):
        chosen = int(index)
        return _branch(site, site.evaluation, chosen if 0 <= chosen <= last else last)
    # Out of range means the last branch; jax's switch would clamp below zero to the first.
    index = lax.select(lax.lt(index, jnp.int32(0)), jnp.int32(last), index)
    hidden = site.evaluation.recording(None)
    outputs = lax.switch(index, [partial(_array_branch, site, hidden, i) for i in range(last + 1)])
    site.evaluation.keep(site.place, tuple(outputs))
    return tuple(outputs)


def _array_branch(site: Site, evaluation: Evaluation, number: int) -> Values:
    return tuple(jnp.asarray(x) for x in _branch(site, evaluation, number))


def _branch(site: Site, evaluation: Evaluation, number: int) -> Values:
    block = site.operation.regions[number]
    place = site.place.inside(f".case{number}")
    return evaluation.block(block, (), block.captured(site.values), place)


def _traced(value: Any) -> bool:
    return isinstance(value, Tracer)


STRUCTURE: Mapping[str, Callable[[Site], Values]] = {
    "func.call": _called("callee"),
    # One that has no rule of its own is computed as the program says.
    COMPOSITE: _called("decomposition"),
    "sdy.sharding_constraint": _unchanged,
    "stablehlo.case": _branches,
    "stablehlo.custom_call": _assertion,
    "stablehlo.if": _branches,
    "stablehlo.optimization_barrier": _barrier,
}
