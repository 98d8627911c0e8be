"""Gather the digests of subtrees over the devices, and merge what then lies together.

One gather over all devices is enough where digests are few. A tensor that is cut along one axis
into as many parts as there are tiles leaves nearly all its merges above the blocks: every device
of many would then gather and merge every tile of the tensor. So above a number of rows there are
two gathers: first among devices that hold neighbouring blocks, which merge them, then among those
groups.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from anh_jax.digest.merge_list import Merge, MergeLevels, Rows, merge_nodes, run_merges
from anh_jax.digest.placement import Axes, PrimeMesh, device_blocks

# 8 MiB of digests on every device: above, a second gather costs less than the merges it saves.
_ONE_GATHER_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class Standing:
    """Say how far a tensor's tree is merged: `names` are the mesh axes that cut its dimensions.

    `subtrees` is the grid of what is left of one block, and `axes` are the merges left to do.
    """

    names: Axes
    subtrees: tuple[int, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GatherOperands:
    """Hold the numbers of a gather that its program takes as arguments.

    `mine` int32[subtrees]: the rows a device gives. `first` int32[devices * subtrees]: for each
    row gathered, the first row that is a digest of the same tiles. `owner` int32[subtrees]: the
    tensor of each row. `place` int32[devices of the mesh]: their places in the gather.
    """

    mine: jax.Array
    first: jax.Array
    owner: jax.Array
    place: jax.Array
    pairs: jax.Array
    kinds: jax.Array


jax.tree_util.register_dataclass(GatherOperands)


@dataclass(frozen=True, slots=True)
class Gather:
    """Gather over the devices along mesh axes `names`, `size` of them."""

    names: tuple[str, ...]
    size: int
    operands: GatherOperands


@dataclass(frozen=True, slots=True)
class PlannedGathers:
    """Hold the gathers, and after the last the rows of the tensors' roots."""

    gathers: tuple[Gather, ...]
    roots: Rows


def plan_gathers(
    mesh: PrimeMesh, standings: Sequence[Standing], subtrees: Sequence[Rows], lanes: int
) -> PlannedGathers:
    """Plan how the subtrees int64[n] that each device holds of each tensor become one root."""
    rows = mesh.mesh.size * sum(map(len, subtrees))
    near = _neighbours(mesh, standings) if rows > _ONE_GATHER_ROWS else ()
    far = tuple(name for name in mesh.mesh.axis_names if name not in near)
    gathers: list[Gather] = []
    for names in (near, far) if near and far else (mesh.mesh.axis_names,):
        gather, standings, subtrees = _plan_gather(mesh, names, standings, subtrees, lanes)
        gathers.append(gather)
    return PlannedGathers(tuple(gathers), np.concatenate(subtrees))


def _neighbours(mesh: PrimeMesh, standings: Sequence[Standing]) -> tuple[str, ...]:
    """Return axes along which devices hold neighbouring blocks of every tensor.

    Those are the last of the axes that cut a dimension. About the square root of the number of
    devices makes both gathers small.
    """
    near: list[str] = []
    sizes = mesh.sizes
    while math.prod(sizes[name] for name in near) ** 2 < mesh.mesh.size:
        inner = {
            name
            for each in standings
            for names in each.names
            for name in [name for name in names if name not in near][:-1]
        }
        cutting = {name for each in standings for names in each.names for name in names}
        usable = [name for name in sizes if name not in inner and name not in near]
        usable.sort(key=lambda name: name not in cutting)
        if not usable:
            break
        near.append(usable[0])
    return tuple(name for name in sizes if name in near)


def _plan_gather(
    mesh: PrimeMesh,
    names: tuple[str, ...],
    standings: Sequence[Standing],
    subtrees: Sequence[Rows],
    lanes: int,
) -> tuple[Gather, list[Standing], list[Rows]]:
    sizes = {name: mesh.sizes[name] for name in names}
    devices = math.prod(sizes.values())
    counts = [len(each) for each in subtrees]
    starts, count = np.cumsum([0, *counts[:-1]]), sum(counts)
    levels = MergeLevels(devices * count)
    after: list[Standing] = []
    sources: list[Rows] = []
    first: list[Rows] = []
    for standing, start, size in zip(standings, starts, counts, strict=True):
        gathered = tuple(tuple(n for n in cut if n in sizes) for cut in standing.names)
        blocks = device_blocks(sizes, gathered)
        holders = np.unique(blocks, return_index=True)[1]  # the first device of each block
        first.append(holders[blocks][:, None] * count + start + np.arange(size))
        parts = tuple(math.prod(sizes[name] for name in cut) for cut in gathered)
        joined = _join(standing, sizes, parts)
        after.append(joined)
        done = standing.axes[: len(standing.axes) - len(joined.axes)]
        sources.append(_sources(standing.subtrees, parts, done, start + holders * count))
    roots = by_width(sources, lambda alike: merge_nodes(levels, alike))
    finished = levels.finish(lanes)
    everywhere = dict(mesh.sizes)
    operands = GatherOperands(
        mine=_numbers(np.concatenate(subtrees)),
        first=_numbers(np.concatenate(first, axis=1).reshape(-1)),
        owner=_numbers(np.repeat(np.arange(len(counts)), counts)),
        place=_numbers(device_blocks(everywhere, (names,))),
        pairs=_numbers(finished.merges.pairs),
        kinds=_numbers(finished.merges.kinds),
    )
    return Gather(names, devices, operands), after, [finished.places[rows] for rows in roots]


def _join(standing: Standing, sizes: dict[str, int], parts: Sequence[int]) -> Standing:
    """Return how a tensor stands once the blocks of a group are one block, and merged."""
    remaining = [a * b for a, b in zip(standing.subtrees, parts, strict=True)]
    done = 0
    while done < len(standing.axes) and remaining[standing.axes[done]] > 1:
        remaining[standing.axes[done]] //= 2
        done += 1
    names = tuple(tuple(name for name in cut if name not in sizes) for cut in standing.names)
    return Standing(names, tuple(remaining), standing.axes[done:])


def _sources(
    subtrees: Sequence[int], parts: Sequence[int], axes: Sequence[int], starts: Rows
) -> Rows:
    """Return the gathered rows in the order in which `axes` merges them, int64[results, width].

    `starts` int64[blocks] are the first gathered rows of each block.
    """
    whole = tuple(a * b for a, b in zip(subtrees, parts, strict=True))
    order = tile_order(whole, axes)
    places = np.unravel_index(order, whole) if whole else ()
    block, within = np.zeros_like(order), np.zeros_like(order)
    for place, part, extent in zip(places, parts, subtrees, strict=True):
        block = block * part + place // extent
        within = within * extent + place % extent
    return starts[block] + within


def tile_order(grid: Sequence[int], axes: Sequence[int]) -> Rows:
    """List blocks of a grid by C order, int64[subtrees, blocks of a subtree].

    A subtree's blocks are listed so that every merge along `axes` joins neighbours; subtrees are
    in C order.
    """
    strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
    order, weight = np.zeros(1, np.int64), [1] * len(grid)
    for axis in axes:  # from the tiles up: each merge doubles what a subtree holds
        order = np.concatenate([order, order + weight[axis] * strides[axis]])
        weight[axis] *= 2
    corners = np.zeros(1, np.int64)
    for count, step, stride in zip(grid, weight, strides, strict=True):
        corners = (corners[:, None] + np.arange(0, count, step) * stride).reshape(-1)
    return corners[:, None] + order


def by_width(rows: Sequence[Rows], merge: Callable[[list[Rows]], list[Rows]]) -> list[Rows]:
    """Apply a merge to arrays int64[n, width], those of one width as one array."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(rows):
        groups[each.shape[1]].append(index)
    merged = merge([np.concatenate([rows[i] for i in group]) for group in groups.values()])
    results: dict[int, Rows] = {}
    for group, result in zip(groups.values(), merged, strict=True):
        ends = np.cumsum([len(rows[i]) for i in group])[:-1]
        results |= dict(zip(group, np.split(result, ends), strict=True))
    return [results[index] for index in range(len(rows))]


def run_gathers(
    pool: jax.Array, gathers: Sequence[Gather], tensors: int, merge: Merge
) -> tuple[jax.Array, jax.Array]:
    """Gather and merge on each device, the gathers holding traced operands.

    Returns the last pool, and bool[tensors, devices]: which devices' digests differ from those of
    the first device with the same elements.
    """
    flags = jnp.zeros((tensors, 1), jnp.uint32)
    differs = jnp.zeros((tensors, gathers[0].operands.place.shape[0]), jnp.bool_)
    for number, gather in enumerate(gathers):
        mine = pool[gather.operands.mine]
        count = mine.shape[0]
        if number:  # what the gather before has found differs from group to group
            words = jnp.pad(flags.reshape(-1), (0, -flags.size % 8)).reshape(-1, 8)
            mine = jnp.concatenate([mine, words])
        rows = mine if gather.size == 1 else lax.all_gather(mine, gather.names, tiled=True)
        rows = rows.reshape(gather.size, -1, 8)
        if number:
            found = rows[:, count:].reshape(gather.size, -1)[:, : flags.size]
            found = found.reshape(gather.size, *flags.shape) > 0
            before = gathers[number - 1].operands.place
            differs |= found[gather.operands.place, :, before].T
        pool = rows[:, :count].reshape(-1, 8)
        found = _differs(pool, gather, tensors)
        flags = found.astype(jnp.uint32)
        differs |= found[:, gather.operands.place] if number == len(gathers) - 1 else False
        pool = run_merges(pool, gather.operands.pairs, gather.operands.kinds, merge)
    return pool, differs


def _differs(rows: jax.Array, gather: Gather, tensors: int) -> jax.Array:
    differs = (rows != rows[gather.operands.first]).any(axis=1).reshape(gather.size, -1)
    counts = jax.ops.segment_sum(
        differs.T.astype(jnp.int32), gather.operands.owner, tensors, indices_are_sorted=True
    )
    return counts > 0


def _numbers(rows: "Rows | np.ndarray") -> jax.Array:
    """Return row numbers as a device takes them; they stay numpy's until they are placed."""
    return rows.astype(np.int32)  # type: ignore[return-value]
