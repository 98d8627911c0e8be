"""Bring a tree's values onto one mesh; those that lie there already stay where they are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from anh_jax.digest.placement import Axes, PrimeMesh, replicated, shared_axes
from anh_jax.digest.tile_words import WORD_BYTES, host_words
from anh_jax.digest.tree import Array
from anh_jax.errors import AnhError
from attest.digest_tree import path_text
from attest.tensor_header import TensorHeader


@dataclass(frozen=True, slots=True)
class Source:
    """Say how a value reaches the mesh, and how it is held there.

    `moved` is None where it lies on the mesh already; True where its elements are cut anew between
    devices, False where whole copies go to each.
    """

    held: Axes
    moved: bool | None = None
    note: str | None = None


def choose_mesh(values: Sequence[Array]) -> PrimeMesh:
    """Return the mesh of the most devices among the values' (of equals, of the most bytes)."""
    meshes: Counter[Mesh] = Counter()
    devices: Counter[Any] = Counter()
    for value in values:
        if not isinstance(value, jax.Array):
            continue
        sharding = value.sharding
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            meshes[sharding.mesh] += value.nbytes + 1
        else:
            devices[next(iter(sharding.addressable_devices))] += value.nbytes + 1
    if meshes:
        return PrimeMesh.over(max(meshes, key=lambda mesh: (mesh.size, meshes[mesh])))
    device = max(devices, key=devices.__getitem__) if devices else jax.local_devices()[0]
    return PrimeMesh.over(Mesh(np.array([device]), ("device",)))


def find_source(mesh: PrimeMesh, header: TensorHeader, value: Array) -> Source:
    """Decide how a value reaches the mesh, from its sharding alone.

    Raises:
        AnhError: for an array over several processes that lies on other devices than the mesh.
    """
    rank = len(header.dims)
    whole: Axes = ((),) * rank
    if not isinstance(value, jax.Array):
        wide = header.itemsize > WORD_BYTES
        return Source(whole + ((),) * wide, moved=False)
    held = _held(mesh, value, rank)
    if held is not None:
        return Source(held, None if _in_device_memory(value) else True)
    if value.is_fully_replicated:
        return Source(whole, moved=False)
    name = path_text(header.path)
    if not value.is_fully_addressable:
        raise AnhError(
            f"digest: {name}: it lies on other devices, or on the same in another order, than "
            "most of the tree; put all arrays on one mesh"
        )
    note = f"{name}: it lies on other devices than most of the tree; moved to be hashed"
    return Source(shared_axes(mesh, whole, header.grid), moved=True, note=note)


def bring(mesh: PrimeMesh, source: Source, value: Array) -> jax.Array:
    """Return a value as its source says."""
    if source.moved is None:
        return cast(jax.Array, value)
    if source.moved:
        return jax.device_put(value, mesh.sharding(source.held))
    return replicated(value if isinstance(value, jax.Array) else host_words(value), mesh.mesh)


def _held(mesh: PrimeMesh, value: jax.Array, rank: int) -> Axes | None:
    if isinstance(value.sharding, NamedSharding):
        return mesh.axes(value.sharding, rank)
    alone = mesh.mesh.size == 1 and value.sharding.device_set == set(mesh.mesh.devices.flat)
    return ((),) * rank if alone else None


def _in_device_memory(value: jax.Array) -> bool:
    kind = value.sharding.memory_kind
    device = next(iter(value.sharding.addressable_devices))
    return kind is None or kind == device.default_memory().kind
