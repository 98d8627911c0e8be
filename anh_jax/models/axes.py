"""Logical axes: what a dimension means, and which mesh axes may split it.

Parameters and activations name their dimensions by meaning; this table alone says how meanings
lie on the mesh. FSDP splits parameters along `embed` and gathers them where they are used; tensor
parallelism splits `heads`, `hidden` and `vocabulary`; both data axes split the batch.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

from anh_jax.errors import ProgramError
from anh_jax.program.signature import Spec
from anh_jax.program.tensors import partition_spec

AxisNames: TypeAlias = tuple[str | None, ...]

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "hidden": ("tensor",),
    "vocabulary": ("tensor",),
}


def spec_of(names: AxisNames) -> Spec:
    """Return the mesh axes of each named dimension; None is never split.

    Raises:
        ProgramError: a name is not in the table.
    """
    for name in names:
        if name is not None and name not in RULES:
            raise ProgramError(f"logical axis {name!r}: unknown; use one of {sorted(RULES)}")
    return tuple(RULES[name] if name is not None else () for name in names)


def constrain(array: Array, *names: str | None) -> Array:
    """Ask the partitioner to split `array` as its dimensions' names say; none outside a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return array
    spec: PartitionSpec = partition_spec(spec_of(names))
    return jax.lax.with_sharding_constraint(array, spec)
