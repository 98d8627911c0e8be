"""Plan a tree's digest on devices: which device hashes what, in which order, and what is gathered.

A plan is made once for a layout and a mesh. Its arrays of row numbers are arguments of the
compiled program, the same on every device: all devices hold blocks of equal shape.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np

from anh_jax.digest.gathering import (
    Gather,
    GatherOperands,
    Standing,
    by_width,
    plan_gathers,
    tile_order,
)
from anh_jax.digest.in_place import InPlace, in_place_batches
from anh_jax.digest.leaves import (
    LeafBatch,
    LeafHash,
    LeafOperands,
    Messages,
    lay_leaves,
)
from anh_jax.digest.merge_list import MergeLevels, Rows, merge_chunks, merge_nodes
from anh_jax.digest.placement import PrimeMesh
from anh_jax.digest.tensor_cut import TensorCut

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

    `pairs` and `kinds` are the merges on each device, `roots` int32[tensors] the rows of the
    results; `zero` uint32[] is 0.
    """

    leaves: tuple[LeafOperands, ...]
    pairs: jax.Array
    kinds: jax.Array
    gathers: tuple[GatherOperands, ...]
    roots: jax.Array
    zero: jax.Array


jax.tree_util.register_dataclass(Operands)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Hold what the program of one tree is made from.

    `in_place` says of each batch how its tensors are read where they lie, or None: it is copied.
    """

    mesh: PrimeMesh
    tensors: tuple[TensorCut, ...]
    batches: tuple[tuple[Piece, ...], ...]
    in_place: tuple[InPlace | None, ...]
    leaves: tuple[LeafBatch, ...]
    gathers: tuple[Gather, ...]
    operands: Any


def make_plan(tree_hash: TreeHash, mesh: PrimeMesh, tensors: Sequence[TensorCut]) -> DevicePlan:
    """Plan the digest of tensors whose cuts are known."""
    chunks = tree_hash.chunks
    in_reach = chunks is not None and chunks.in_place is not None
    read = in_place_batches(mesh, tensors) if in_reach else []
    whole = [tuple(_pieces(i, tensors[i], 1)[0] for i in members) for _, members in read]
    copied = _batches(tensors, {piece.tensor for pieces in whole for piece in pieces})
    batches = (*copied, *whole)
    in_place = (*[None] * len(copied), *[how for how, _ in read])
    leaves: list[LeafBatch] = []
    rows = 0
    for pieces, how in zip(batches, in_place, strict=True):
        messages = [Messages(p.tiles, tensors[p.tensor].header.tile_bytes) for p in pieces]
        batch = lay_leaves(tree_hash, messages, rows)
        if how is not None:  # a chunk's place follows from its lane
            counted = replace(batch.operands, counters=batch.operands.counters[:0])
            batch = replace(batch, operands=counted)
        leaves.append(batch)
        rows += batch.rows
    levels = MergeLevels(rows)
    subtrees = _merge_local(levels, tensors, _leaf_rows(batches, leaves, len(tensors)))
    local = levels.finish(tree_hash.lanes)
    standings = [
        Standing(each.placement.cut[: len(each.grid)], each.subtrees, each.axes[each.local :])
        for each in tensors
    ]
    held = [local.places[rows] for rows in subtrees]
    planned = plan_gathers(mesh, standings, held, tree_hash.lanes)
    operands: dict[str, Any] = {
        "pairs": local.merges.pairs,
        "kinds": local.merges.kinds,
        "roots": planned.roots.astype(np.int32),
        "zero": np.zeros((), np.uint32),
    }
    placed = Operands(
        leaves=tuple(batch.operands for batch in leaves),
        gathers=tuple(gather.operands for gather in planned.gathers),
        **operands,
    )
    return DevicePlan(
        mesh=mesh,
        tensors=tuple(tensors),
        batches=batches,
        in_place=in_place,
        leaves=tuple(leaves),
        gathers=planned.gathers,
        operands=placed,
    )


def _batches(tensors: Sequence[TensorCut], without: Set[int]) -> tuple[tuple[Piece, ...], ...]:
    copied = {index: each for index, each in enumerate(tensors) if index not in without}
    sizes = {i: math.prod(each.grid) * each.header.tile_bytes for i, each in copied.items()}
    limit = max(_BATCH_BYTES, -(-sum(sizes.values()) // _BATCHES))
    batches: list[list[Piece]] = [[]] if copied else []
    free = limit
    for index, tensor in copied.items():
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
    tiles = by_width(leaves, lambda alike: merge_chunks(levels, alike))
    ordered = [
        rows[tile_order(tensor.grid, tensor.axes[: tensor.local])]
        for tensor, rows in zip(tensors, tiles, strict=True)
    ]
    return by_width(ordered, lambda alike: merge_nodes(levels, alike))
