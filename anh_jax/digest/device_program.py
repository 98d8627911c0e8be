"""The compiled program of a plan: every device hashes its tiles, one gather, the top of the trees.

It runs under shard_map: a plain jit would gather the elements themselves. Only digests cross
between devices, and only 32 bytes a tensor leave them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from anh_jax.digest.device_plan import DevicePlan, Operands, Piece, TreeHash
from anh_jax.digest.gathering import run_gathers
from anh_jax.digest.in_place import arriving, hash_in_place
from anh_jax.digest.leaves import hash_leaves
from anh_jax.digest.merge_list import run_merges
from anh_jax.digest.placement import spec
from anh_jax.digest.tensor_cut import TensorCut
from anh_jax.digest.tile_words import as_elements, element_words, tile_words


@dataclass(frozen=True, slots=True)
class DeviceRoots:
    """Hold what a program returns, the same on every device.

    `roots` uint32[tensors, 8] are the roots of the tensors' tiles, `differs` bool[tensors,
    devices] marks the devices whose digests of a tensor are not those of the first device that
    holds the same elements, and `any_differs` says whether there are any.
    """

    roots: jax.Array
    differs: jax.Array
    any_differs: jax.Array


jax.tree_util.register_dataclass(DeviceRoots)


class Program(Protocol):
    """A jitted program: values of the tensors with elements, and operands, to roots."""

    def __call__(self, values: Sequence[jax.Array], operands: Operands) -> DeviceRoots:
        """Dispatch the program."""
        ...

    def lower(self, values: Sequence[jax.Array], operands: Operands) -> jax.stages.Lowered:
        """Lower the program for these arguments."""
        ...


def make_program(tree_hash: TreeHash, plan: DevicePlan) -> Program:
    """Return the jitted program of a plan."""
    filled = [index for index, tensor in enumerate(plan.tensors) if math.prod(tensor.header.dims)]
    placements = [plan.tensors[index].placement for index in filled]
    read = {
        piece.tensor
        for pieces, how in zip(plan.batches, plan.in_place, strict=True)
        if how is not None
        for piece in pieces
    }
    # What is read where it lies is not cut before: a replica's part would be a copy.
    arrive = [
        arriving(placement) if index in read else placement.cut
        for index, placement in zip(filled, placements, strict=True)
    ]

    def hash_on_device(values: Sequence[jax.Array], operands: Operands) -> DeviceRoots:
        blocks = dict(zip(filled, values, strict=True))
        for index in read:
            blocks[index] = as_elements(blocks[index], plan.tensors[index].header.dtype)
        pool = _hash_batches(tree_hash, plan, blocks, operands)
        pool = run_merges(pool, operands.pairs, operands.kinds, tree_hash.merge)
        gathers = [
            replace(gather, operands=numbers)
            for gather, numbers in zip(plan.gathers, operands.gathers, strict=True)
        ]
        top, differs = run_gathers(pool, gathers, len(plan.tensors), tree_hash.merge)
        return DeviceRoots(top[operands.roots], differs, differs.any())

    # Where a tensor is cut otherwise than it is held, this is where its elements move.
    mapped = jax.shard_map(
        hash_on_device,
        mesh=plan.mesh.mesh,
        in_specs=([spec(axes) for axes in arrive], PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )

    def hash_tree(values: Sequence[jax.Array], operands: Operands) -> DeviceRoots:
        words = [
            _words_in_place(plan, index, value) if placement.moves else value
            for index, placement, value in zip(filled, placements, values, strict=True)
        ]
        return mapped(words, operands)

    held = [plan.mesh.sharding(placement.held) for placement in placements]
    everywhere = NamedSharding(plan.mesh.mesh, PartitionSpec())
    jitted = jax.jit(hash_tree, in_shardings=(held, everywhere), out_shardings=everywhere)
    return cast(Program, jitted)


def _words_in_place(plan: DevicePlan, index: int, value: jax.Array) -> jax.Array:
    """Return a tensor's elements as integers, for what crosses between devices.

    A backend may carry narrow floats as wider ones, which quiets a NaN. Under shard_map, because
    XLA is free to move elements before an operation that it sees as a whole.
    """
    tensor = plan.tensors[index]
    held = spec(tensor.placement.held)
    return jax.shard_map(
        lambda block: element_words(block, tensor.header.dtype),
        mesh=plan.mesh.mesh,
        in_specs=held,
        out_specs=held,
        check_vma=False,
    )(value)


def _hash_batches(
    tree_hash: TreeHash, plan: DevicePlan, blocks: dict[int, jax.Array], operands: Operands
) -> jax.Array:
    """Hash the leaves of all tensors, one batch after the other."""
    pool: list[jax.Array] = []
    batches = zip(plan.batches, plan.in_place, plan.leaves, operands.leaves, strict=True)
    for pieces, how, batch, numbers in batches:
        if how is not None:
            tensors = [blocks[piece.tensor] for piece in pieces]
            pool.append(hash_in_place(tree_hash, how, batch, tensors, numbers))
            continue
        words = [_piece_words(plan.tensors[piece.tensor], piece, blocks) for piece in pieces]
        if pool:
            # A batch waits for the one before, so that their copies share memory. A barrier does
            # not order them on every backend; a zero that the compiler cannot know does.
            nothing = pool[-1][0, 0] & operands.zero
            words = [each ^ nothing for each in words]
        pool.append(hash_leaves(tree_hash, batch, words, numbers))
    return pool[0] if len(pool) == 1 else jnp.concatenate(pool)


def _piece_words(tensor: TensorCut, piece: Piece, blocks: dict[int, jax.Array]) -> jax.Array:
    if piece.tensor not in blocks:  # one tile of no bytes
        return jnp.zeros((1, 0), jnp.uint32)
    block = blocks[piece.tensor]
    if piece.tiles < math.prod(tensor.grid):
        block = lax.slice_in_dim(block, piece.start, piece.stop, axis=piece.axis)
    return tile_words(block, tensor.header.dtype, tensor.tile)
