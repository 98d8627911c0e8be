"""Decide which device hashes which tiles of a tensor, from its sharding and its grid alone.

All devices are seen as one mesh whose axes have prime sizes: a mesh of (2, 4) and one of (8,) over
the same devices are both groups of its axes, and an axis can be moved or split on its own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from attest.digest_tree import merge_axes, path_text
from attest.tensor_header import TensorHeader

# A tensor below this size whose shards split tiles is copied to every device; a larger one is cut
# anew along axes where its shards are whole tiles.
COPIED_BYTES = 1 << 20
# Replicas share the work on a tensor that is larger than this on each of them. Hashing less twice
# costs nothing, and its digests are then compared at every step.
SHARED_BYTES = 1 << 16

# The axes of a mesh that cut each dimension of an array, major first.
Axes: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class PrimeMesh:
    """Hold devices as a mesh of axes of prime size, in the order the array's meshes have them."""

    mesh: Mesh

    @classmethod
    def over(cls, mesh: Mesh) -> "PrimeMesh":
        """Split every axis of a mesh into axes of prime size."""
        sizes = [prime for size in mesh.devices.shape for prime in _primes(size)] or [1]
        names = tuple(f"d{index}" for index in range(len(sizes)))
        return cls(Mesh(mesh.devices.reshape(sizes), names))

    @property
    def sizes(self) -> dict[str, int]:
        """Return the size of each axis."""
        return dict(zip(self.mesh.axis_names, self.mesh.devices.shape, strict=True))

    def axes(self, sharding: NamedSharding, rank: int) -> Axes | None:
        """Write a sharding in axes of this mesh; None if its mesh is no grouping of them."""
        other = sharding.mesh
        if not isinstance(other, Mesh) or list(other.devices.flat) != list(self.mesh.devices.flat):
            return None
        groups = _grouped(self.mesh.devices.shape, other.devices.shape)
        if groups is None:
            return None
        names = dict(zip(other.axis_names, groups, strict=True))
        entries = [*sharding.spec, *[None] * (rank - len(sharding.spec))]
        cut = [() if e is None else (e if isinstance(e, tuple) else (e,)) for e in entries]
        return tuple(
            tuple(self.mesh.axis_names[at] for name in entry for at in names[name]) for entry in cut
        )

    def parts(self, axes: Axes) -> tuple[int, ...]:
        """Return how many parts each dimension is cut into."""
        sizes = self.sizes
        return tuple(math.prod(sizes[name] for name in names) for names in axes)

    def blocks(self, axes: Axes) -> NDArray[np.int64]:
        """Return the block each device holds, int64[devices], in C order of the parts."""
        return device_blocks(self.sizes, axes)

    def sharding(self, axes: Axes) -> NamedSharding:
        """Return the sharding that cuts dimensions along axes of this mesh."""
        return NamedSharding(self.mesh, spec(axes))


def device_blocks(sizes: Mapping[str, int], axes: Axes) -> NDArray[np.int64]:
    """Return the block each device of a mesh of named sizes holds, in C order of the parts."""
    places = np.indices(tuple(sizes.values())).reshape(len(sizes), -1)
    of = dict(zip(sizes, places, strict=True))
    block = np.zeros(math.prod(sizes.values()), np.int64)
    for name in (name for names in axes for name in names):
        block = block * sizes[name] + of[name]
    return block


def spec(axes: Axes) -> PartitionSpec:
    """Return axes as a PartitionSpec."""
    return PartitionSpec(*[names if names else None for names in axes])


@dataclass(frozen=True, slots=True)
class Placement:
    """Say how a tensor lies on the devices, and how it is cut to be hashed.

    `held` is how it arrives, `cut` how it is hashed; they differ where a fallback moves elements
    and where replicas share the work. `note` tells of a fallback.
    """

    held: Axes
    cut: Axes
    note: str | None = None

    @property
    def moves(self) -> bool:
        """Say whether elements cross between devices before they are hashed."""
        return any(cut[: len(held)] != held for cut, held in zip(self.cut, self.held, strict=True))


def place(mesh: PrimeMesh, held: Axes, header: TensorHeader, *, every_replica: bool) -> Placement:
    """Cut a tensor so that each device hashes whole tiles.

    With `every_replica`, all replicas hash all they hold; else they share a large tensor. `held`
    may have one more axis than the tensor, of the words of an element.
    """
    rank, nbytes = len(header.dims), math.prod(header.dims) * header.itemsize
    cut, note = held[:rank], None
    if nbytes and not _aligned(mesh, cut, header.grid):
        if nbytes < COPIED_BYTES:
            cut, note = ((),) * rank, "copied to every device to be hashed"
        else:
            cut, note = _nearest(mesh, cut, header.grid), "cut anew on the devices to be hashed"
        note = f"{path_text(header.path)}: its sharding splits tiles; {note}"
    if not nbytes:
        cut = ((),) * rank
    elif not every_replica and nbytes // math.prod(mesh.parts(cut)) > SHARED_BYTES:
        cut = shared_axes(mesh, cut, header.grid)
    return Placement(held, (*cut, *held[rank:]), note)


def _aligned(mesh: PrimeMesh, axes: Axes, grid: Sequence[int]) -> bool:
    return all(count % part == 0 for count, part in zip(grid, mesh.parts(axes), strict=True))


def _nearest(mesh: PrimeMesh, axes: Axes, grid: Sequence[int]) -> Axes:
    """Keep the axes of a mesh where they cut between tiles; move the others, or leave them out."""
    sizes, kept = mesh.sizes, [list[str]() for _ in grid]
    free = list(grid)
    moved: list[str] = []
    for dimension, names in enumerate(axes):
        for name in names:
            if free[dimension] % sizes[name] == 0 and name not in moved:
                kept[dimension].append(name)
                free[dimension] //= sizes[name]
            else:
                moved.append(name)
    for name in moved:
        dimension = max(range(len(grid)), key=free.__getitem__)
        if free[dimension] % sizes[name] == 0:
            kept[dimension].append(name)
            free[dimension] //= sizes[name]
    return tuple(map(tuple, kept))


def shared_axes(mesh: PrimeMesh, axes: Axes, grid: Sequence[int]) -> Axes:
    """Cut blocks further among their replicas, along the topmost merges of the tile tree.

    A replica then holds whole subtrees, and few digests are exchanged.
    """
    used = {name for names in axes for name in names}
    spare = [name for name, size in mesh.sizes.items() if size == 2 and name not in used]
    cut, parts = [list(names) for names in axes], list(mesh.parts(axes))
    whole = [1] * len(grid)
    for axis in reversed(merge_axes(grid)):
        whole[axis] *= 2
        if spare and whole[axis] > parts[axis]:
            cut[axis].append(spare.pop(0))
            parts[axis] *= 2
    return tuple(map(tuple, cut))


def replicated(value: "jax.Array | NDArray", mesh: Mesh) -> jax.Array:
    """Copy a value that this process holds whole to each of its devices of the mesh.

    Every process passes the same value; nothing crosses between processes.
    """
    devices = [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    if isinstance(value, jax.Array):
        value = value.addressable_data(0)
    shards = jax.device_put([value] * len(devices), devices)
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_single_device_arrays(value.shape, sharding, shards)


def _primes(number: int) -> Iterator[int]:
    factor = 2
    while number > 1:
        while number % factor == 0:
            yield factor
            number //= factor
        factor += 1


def _grouped(sizes: Sequence[int], groups: Sequence[int]) -> list[list[int]] | None:
    """Group consecutive sizes so that their products are `groups`; None if there is no way."""
    result: list[list[int]] = []
    at = 0
    for group in groups:
        taken, product = list[int](), 1
        while product < group and at < len(sizes):
            product *= sizes[at]
            taken.append(at)
            at += 1
        if product != group:
            return None
        result.append(taken)
    return result
