"""Sorts."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from anh_jax.program.interpreter.references import sort_keys
from anh_jax.program.interpreter.scope import Rule, Scope


def _sort(scope: Scope, *operands: Any) -> Any:
    (comparator,) = scope.operation.regions
    keys = sort_keys(comparator, scope.values, tuple(x.dtype.name for x in operands))
    if keys is None:
        raise scope.error("its comparator is none that jax writes for a sort by leading operands")
    return lax.sort(
        tuple(jnp.asarray(x) for x in operands),
        dimension=scope.get("dimension", -1),
        is_stable=scope.get("is_stable", False),
        num_keys=keys,
    )


RULES: Mapping[str, Rule] = {"stablehlo.sort": _sort}
