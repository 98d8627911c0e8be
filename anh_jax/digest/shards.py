"""Find the blocks of an array that this process holds, without moving any of them.

What to do with an array is decided from its sharding alone, which every process sees alike: all
of them must agree on which digests to exchange.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from numpy.typing import NDArray

from anh_jax.digest.tile_words import element_words
from anh_jax.digest.tree import Leaf
from anh_jax.errors import AnhError
from attest.digest_tree import path_text

# The largest tensor that may be replicated to be hashed, where its shards split tiles and lie on
# several processes. Biases and norms are that small; anything larger needs an aligned sharding.
REPLICATED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Hold the elements that start at `start`, one offset per axis of the whole array."""

    start: tuple[int, ...]
    values: NDArray


@dataclass(frozen=True, slots=True)
class Spread:
    """Say how an array is cut: `parts` per axis; do parts hold whole tiles, and each process all.

    `aligned`: each part is a whole number of tiles. `complete`: every process holds every part.
    """

    parts: tuple[int, ...]
    aligned: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """Say how a tensor is held here: its spread, and the array and note after any fallback."""

    value: "jax.Array | NDArray"
    spread: Spread
    note: str | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield each distinct block this process holds; its view dies with the loop."""
        if all(part == 1 for part in self.spread.parts):
            yield Block((0,) * self.value.ndim, whole(self.value))
        elif isinstance(self.value, jax.Array):
            yield from _distinct_shards(self.value)


def hold(leaf: Leaf) -> Holding:
    """Decide how to hash a tensor: block by block, assembled on the host, or replicated.

    Raises:
        AnhError: for a large tensor whose shards split tiles and lie on several processes.
    """
    value, header = leaf.value, leaf.header
    single = Spread((1,) * value.ndim, aligned=True, complete=True)
    if not isinstance(value, jax.Array) or value.size == 0 or value.is_fully_replicated:
        return Holding(value, single)
    spread = _spread(value.sharding, header.dims, header.grid)
    if spread.aligned:
        return Holding(value, spread)
    name = path_text(header.path)
    if spread.complete:
        note = f"{name}: its sharding splits tiles; assembled on the host"
        return Holding(whole(value), single, note)
    if value.nbytes > REPLICATED_BYTES or not isinstance(value.sharding, NamedSharding):
        raise AnhError(
            f"digest: {name}: its sharding splits tiles of the grid {header.grid} over processes; "
            "shard each axis in powers of two up to its grid"
        )
    note = f"{name}: its sharding splits tiles over processes; replicated to be hashed"
    return Holding(_replicated(value, value.sharding.mesh, header.dtype), single, note)


def whole(value: "jax.Array | NDArray") -> NDArray:
    """Return all elements on the host; each distinct shard must lie on this process."""
    if not isinstance(value, jax.Array):
        return value
    if value.is_fully_replicated:
        return np.asarray(value.addressable_data(0))
    # Not np.asarray: a sharded array would keep the assembled copy for as long as it lives.
    array = np.empty(value.shape, value.dtype)
    for block in _distinct_shards(value):
        stop = (start + dim for start, dim in zip(block.start, block.values.shape, strict=True))
        array[tuple(map(slice, block.start, stop))] = block.values
    return array


def _distinct_shards(value: jax.Array) -> Iterator[Block]:
    seen: set[tuple[int, ...]] = set()
    for shard in value.addressable_shards:
        start = _start(shard.index)
        if start not in seen:
            seen.add(start)
            yield Block(start, np.asarray(shard.data))


def _start(index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(part.start or 0 for part in index)


@functools.lru_cache(maxsize=1 << 14)  # walking every device of a pod at every step is dear
def _spread(sharding: Sharding, dims: tuple[int, ...], grid: tuple[int, ...]) -> Spread:
    shard = sharding.shard_shape(dims)
    parts = tuple(dim // extent for dim, extent in zip(dims, shard, strict=True))
    aligned = all(count % part == 0 for count, part in zip(grid, parts, strict=True))
    held: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)
    for device, index in sharding.devices_indices_map(dims).items():
        held[device.process_index].add(_start(index))
    complete = all(len(starts) == math.prod(parts) for starts in held.values())
    return Spread(parts, aligned, complete)


def _replicated(value: jax.Array, mesh: Any, dtype: str) -> NDArray:
    """Copy an array to every process. Integers cross: what carries floats may quiet a NaN."""
    words = _as_words(value.sharding, dtype)(value)
    whole = np.asarray(_replicator(mesh)(words).addressable_data(0))
    return whole.reshape(-1).view(value.dtype).reshape(value.shape)


@functools.lru_cache(maxsize=64)
def _as_words(sharding: NamedSharding, dtype: str) -> Callable[[jax.Array], jax.Array]:
    # A program of its own: XLA is free to move elements before it makes them integers.
    return jax.jit(lambda value: element_words(value, dtype), out_shardings=sharding)


@functools.cache
def _replicator(mesh: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda words: words, out_shardings=NamedSharding(mesh, PartitionSpec()))
