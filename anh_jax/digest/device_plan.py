"""Plan a tree's digest on devices: which device hashes what, in which order, and what is gathered.

A plan is made once for a layout and a mesh. Its arrays of row numbers are arguments of the
compiled program, the same on every device: all devices hold blocks of equal shape.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from anh_jax.digest.leaves import LeafBatch, LeafHash, LeafOperands, Messages, lay_leaves
from anh_jax.digest.merge_list import (
    FinishedMerges,
    MergeLevels,
    Rows,
    merge_chunks,
    merge_nodes,
)
from anh_jax.digest.placement import Placement, PrimeMesh
from attest.digest_tree import merge_axes, tile_dims
from attest.tensor_header import TensorHeader

# Tiles are cut, copied in their order and hashed batch after batch: the copies of two batches are
# the temporary memory of a digest, about a third of a large state (measured on CPU). Each batch is
# another instance of the kernels to compile, so small states are one batch.
_BATCH_BYTES = 64 << 20
_BATCHES = 8


class TreeHash(LeafHash, Protocol):
    """Hash the tiles of a tree, and merge what was hashed."""

    @property
    def lanes(self) -> int:
        """Return how many merges keep the backend busy."""
        ...

    def merge(self, words: jax.Array, kind: jax.Array) -> jax.Array:
        """Merge pairs uint32[n, 16] to uint32[n, 8], as a `merge_list.Kind` says."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """Name part of a tensor's block: `start` to `stop` along an axis, in elements."""

    tensor: int
    axis: int
    start: int
    stop: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Operands:
    """Hold the numbers that the compiled program takes as arguments.

    `mine` int32[subtrees]: the rows a device gives to all others. `first` int32[devices *
    subtrees]: for each row gathered, the first row that is a digest of the same tiles. `owner`
    int32[subtrees]: the tensor of each row. `roots` int32[tensors]: the rows of the results.
    `zero` uint32[] is 0.
    """

    leaves: tuple[LeafOperands, ...]
    pairs: jax.Array
    kinds: jax.Array
    mine: jax.Array
    first: jax.Array
    owner: jax.Array
    top_pairs: jax.Array
    top_kinds: jax.Array
    roots: jax.Array
    zero: jax.Array


jax.tree_util.register_dataclass(Operands)


@dataclass(frozen=True, slots=True)
class TensorCut:
    """Say how a tensor is cut: `tile` is a tile's shape, `grid` the tiles of one block.

    `local` merges of `axes` lie within a block; `subtrees` is the grid of what they leave there.
    """

    header: TensorHeader
    placement: Placement
    parts: tuple[int, ...]
    tile: tuple[int, ...]
    grid: tuple[int, ...]
    axes: tuple[int, ...]
    local: int
    subtrees: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Hold what the program of one tree is made from."""

    mesh: PrimeMesh
    tensors: tuple[TensorCut, ...]
    batches: tuple[tuple[Piece, ...], ...]
    leaves: tuple[LeafBatch, ...]
    operands: Operands


def cut_tensor(mesh: PrimeMesh, header: TensorHeader, placement: Placement) -> TensorCut:
    """Describe a tensor's cut; the axes of its placement may be more than those of its header."""
    rank = len(header.dims)
    parts = mesh.parts(placement.cut)[:rank]
    axes = merge_axes(header.grid)
    remaining, local = list(header.grid), 0
    while local < len(axes) and remaining[axes[local]] > parts[axes[local]]:
        remaining[axes[local]] //= 2
        local += 1
    return TensorCut(
        header=header,
        placement=placement,
        parts=parts,
        tile=tile_dims(header.dims, header.grid),
        grid=tuple(count // part for count, part in zip(header.grid, parts, strict=True)),
        axes=axes,
        local=local,
        subtrees=tuple(count // part for count, part in zip(remaining, parts, strict=True)),
    )


def make_plan(tree_hash: TreeHash, mesh: PrimeMesh, tensors: Sequence[TensorCut]) -> DevicePlan:
    """Plan the digest of tensors whose cuts are known."""
    batches = _batches(tensors)
    leaves: list[LeafBatch] = []
    rows = 0
    for pieces in batches:
        messages = [Messages(p.tiles, tensors[p.tensor].header.tile_bytes) for p in pieces]
        leaves.append(lay_leaves(tree_hash, messages, rows))
        rows += leaves[-1].rows
    levels = MergeLevels(rows)
    subtrees = _merge_local(levels, tensors, _leaf_rows(batches, leaves, len(tensors)))
    local = levels.finish(tree_hash.lanes)
    sizes = [len(each) for each in subtrees]
    starts, count = np.cumsum([0, *sizes[:-1]]), sum(sizes)
    blocks = [mesh.blocks(tensor.placement.cut) for tensor in tensors]
    holders = [np.unique(each, return_index=True)[1] for each in blocks]  # a block's first device
    top_levels = MergeLevels(mesh.mesh.devices.size * count)
    sources = [
        _sources(tensor, start + holding * count)
        for tensor, holding, start in zip(tensors, holders, starts, strict=True)
    ]
    roots = np.concatenate(_by_width(sources, lambda alike: merge_nodes(top_levels, alike)))
    top = top_levels.finish(tree_hash.lanes)
    first = [
        holding[block][:, None] * count + start + np.arange(size)
        for holding, block, start, size in zip(holders, blocks, starts, sizes, strict=True)
    ]
    operands = _operands(local, top, np.concatenate(subtrees), roots, first, sizes)
    placed = Operands(leaves=tuple(batch.operands for batch in leaves), **operands)
    return DevicePlan(mesh, tuple(tensors), batches, tuple(leaves), placed)


def _operands(
    local: FinishedMerges,
    top: FinishedMerges,
    subtrees: Rows,
    roots: Rows,
    first: Sequence[Rows],
    sizes: Sequence[int],
) -> dict[str, Any]:
    return {
        "pairs": local.merges.pairs,
        "kinds": local.merges.kinds,
        "mine": local.places[subtrees].astype(np.int32),
        "first": np.concatenate(first, axis=1).reshape(-1).astype(np.int32),
        "owner": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        "top_pairs": top.merges.pairs,
        "top_kinds": top.merges.kinds,
        "roots": top.places[roots].astype(np.int32),
        "zero": np.zeros((), np.uint32),
    }


def _batches(tensors: Sequence[TensorCut]) -> tuple[tuple[Piece, ...], ...]:
    sizes = [math.prod(tensor.grid) * tensor.header.tile_bytes for tensor in tensors]
    limit = max(_BATCH_BYTES, -(-sum(sizes) // _BATCHES))
    batches: list[list[Piece]] = [[]]
    free = limit
    for index, tensor in enumerate(tensors):
        for piece in _pieces(index, tensor, -(-sizes[index] // limit)):
            size = piece.tiles * tensor.header.tile_bytes
            if size > free and batches[-1]:
                batches.append([])
                free = limit
            batches[-1].append(piece)
            free -= size
    return tuple(map(tuple, batches))


def _pieces(index: int, tensor: TensorCut, count: int) -> list[Piece]:
    """Cut a block into about `count` slabs of tiles, in the C order of its grid."""
    tiles = math.prod(tensor.grid)
    axis = next((axis for axis, extent in enumerate(tensor.grid) if extent > 1), None)
    if axis is None:
        return [Piece(index, 0, 0, tensor.tile[0] if tensor.tile else 0, tiles)]
    rows = -(-tensor.grid[axis] // max(count, 1))
    edges = [*range(0, tensor.grid[axis], rows), tensor.grid[axis]]
    extent, each = tensor.tile[axis], tiles // tensor.grid[axis]
    return [
        Piece(index, axis, start * extent, stop * extent, (stop - start) * each)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _leaf_rows(
    batches: Sequence[Sequence[Piece]], leaves: Sequence[LeafBatch], tensors: int
) -> list[Rows]:
    parts: list[list[Rows]] = [[] for _ in range(tensors)]
    for pieces, batch in zip(batches, leaves, strict=True):
        for piece, rows in zip(pieces, batch.leaves, strict=True):
            parts[piece.tensor].append(rows)
    return [np.concatenate(each) for each in parts]


def _merge_local(
    levels: MergeLevels, tensors: Sequence[TensorCut], leaves: Sequence[Rows]
) -> list[Rows]:
    """Merge leaves to tiles and tiles to the largest subtrees that lie within a block."""
    tiles = _by_width(leaves, lambda alike: merge_chunks(levels, alike))
    ordered = [
        rows[tile_order(tensor.grid, tensor.axes[: tensor.local])]
        for tensor, rows in zip(tensors, tiles, strict=True)
    ]
    return _by_width(ordered, lambda alike: merge_nodes(levels, alike))


def _by_width(rows: Sequence[Rows], merge: Any) -> list[Rows]:
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


def _sources(tensor: TensorCut, starts: Rows) -> Rows:
    """Return the gathered rows of a tensor's subtrees in the order of its merges.

    `starts` int64[blocks] are the first gathered rows of each block.
    """
    whole = tuple(a * b for a, b in zip(tensor.parts, tensor.subtrees, strict=True))
    (order,) = tile_order(whole, tensor.axes[tensor.local :])
    places = np.unravel_index(order, whole) if whole else ()
    block, within = np.zeros_like(order), np.zeros_like(order)
    for place, part, extent in zip(places, tensor.parts, tensor.subtrees, strict=True):
        block = block * part + place // extent
        within = within * extent + place % extent
    return (starts[block] + within)[None]
