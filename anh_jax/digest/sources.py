"""Bring a tree's values onto one mesh; those that lie there already stay where they are."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from anh_jax.digest.placement import Axes, PrimeMesh, replicated, shared_axes
from anh_jax.digest.tile_words import WORD_BYTES, element_words, host_words
from anh_jax.digest.tree import Array
from anh_jax.errors import AnhError
from attest.digest_tree import path_text
from attest.tensor_header import TensorHeader

_NO_MESH = Mesh(np.empty((), np.object_), ())


class Route(Enum):
    """Say how a value reaches the mesh.

    IN_PLACE: it lies there. RENAMED: it lies there under a mesh with explicit axes, which JAX does
    not mix with others: its shards are named anew. FETCHED: its shards lie in their host's memory.
    MOVED: its elements, as integers, are cut anew between devices. COPIED: whole copies go to each
    device.
    """

    IN_PLACE = 0
    RENAMED = 1
    FETCHED = 2
    MOVED = 3
    COPIED = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Say how a value reaches the mesh, and how it is held there."""

    held: Axes
    route: Route = Route.IN_PLACE
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
    words: Axes = ((),) if header.itemsize > WORD_BYTES else ()  # their axis, where there are any
    if not isinstance(value, jax.Array):
        return Source(whole + words, Route.COPIED)
    held = _held(mesh, value, rank)
    if held is not None:
        return Source(held, _route(value))
    if value.is_fully_replicated:
        return Source(whole, Route.COPIED)
    name = path_text(header.path)
    if not value.is_fully_addressable:
        raise AnhError(
            f"digest: {name}: it lies on other devices, or on the same in another order, than "
            "most of the tree; put all arrays on one mesh"
        )
    note = f"{name}: it lies on other devices than most of the tree; moved to be hashed"
    return Source(shared_axes(mesh, whole, header.grid) + words, Route.MOVED, note)


def bring(mesh: PrimeMesh, source: Source, header: TensorHeader, value: Array) -> jax.Array:
    """Return a value as its source says."""
    if not isinstance(value, jax.Array):
        return replicated(host_words(value), mesh.mesh)
    if source.route is Route.IN_PLACE:
        return value
    held = mesh.sharding(source.held)
    if source.route is Route.FETCHED:
        return jax.device_put(value, held)
    if source.route is Route.MOVED:
        return jax.device_put(_words_there(value, header.dtype), held)
    if source.route is Route.RENAMED:
        shards = [shard.data for shard in value.addressable_shards]
        return jax.make_array_from_single_device_arrays(value.shape, held, shards)
    return replicated(value, mesh.mesh)


def _held(mesh: PrimeMesh, value: jax.Array, rank: int) -> Axes | None:
    if isinstance(value.sharding, NamedSharding):
        return mesh.axes(value.sharding, rank)
    alone = mesh.mesh.size == 1 and value.sharding.device_set == set(mesh.mesh.devices.flat)
    return ((),) * rank if alone else None


def _route(value: jax.Array) -> Route:
    sharding = value.sharding
    if sharding.memory_kind not in (None, _device_memory(value)):
        return Route.FETCHED
    explicit = isinstance(sharding, NamedSharding) and sharding.mesh.explicit_axes
    return Route.RENAMED if explicit else Route.IN_PLACE


def _device_memory(value: jax.Array) -> str:
    return next(iter(value.sharding.addressable_devices)).default_memory().kind


def _words_there(value: jax.Array, dtype: str) -> jax.Array:
    """Return a value's elements as integers, on its own devices and cut as it is.

    Moved as floats, a NaN may be quieted: some backends carry narrow floats as wider ones.
    """
    sharding = value.sharding
    there = jax.device_put(value, sharding.with_memory_kind(_device_memory(value)))
    # JAX refuses to compute on other devices than those of the mesh that is set.
    mesh: Any = sharding.mesh if isinstance(sharding, NamedSharding) else _NO_MESH
    with jax.set_mesh(mesh):
        return _element_words(there, dtype)


@functools.partial(jax.jit, static_argnames="dtype")
def _element_words(value: jax.Array, dtype: str) -> jax.Array:
    return element_words(value, dtype)
