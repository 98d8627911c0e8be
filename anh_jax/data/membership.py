"""Proofs about examples: this one is in the data set, this one was in step t, this was the batch.

A checker needs the data root and batch root (from the contract and the step's row), the order's
few numbers, and the examples themselves; it never needs the rest of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from anh_jax.data.examples import Examples, checked_examples, example_count, iter_example_bytes
from anh_jax.data.manifest import Manifest, batch_leaves, batch_root
from anh_jax.data.order import examples_for_step
from anh_jax.errors import DataError, RefutedError
from attest import merkle
from attest.errors import AttestError


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The place of a leaf in a tree and its path to the root (RFC 6962 section 2.1.1)."""

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What fixes the examples of every step: seed, examples per step, examples in the set."""

    seed: int
    batch_size: int
    examples: int

    def step(self, step: int) -> Int64[np.ndarray, " batch_size"]:
        """Return the examples of a step: int64[batch_size] indices."""
        return examples_for_step(self.seed, step, self.batch_size, self.examples)


@dataclass(frozen=True, slots=True, eq=False)
class BatchOpening:
    """The examples of one step, one row each, and each row's place in the data set."""

    examples: Examples
    places: tuple[Inclusion, ...]


class ExampleTree:
    """All levels of a manifest's tree, for many paths: 64 bytes of memory per example."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(row := self._levels[-1]) > 1:
            # An odd last node moves up unchanged, as RFC 6962 splits at a power of two.
            pairs = zip(row[::2], row[1::2], strict=False)
            parents = [merkle.node_hash(left, right) for left, right in pairs]
            self._levels.append(parents + (row[-1:] if len(row) % 2 else []))

    @classmethod
    def of(cls, manifest: Manifest) -> ExampleTree:
        """Build the tree over a manifest's leaf hashes."""
        return cls([row.tobytes() for row in manifest.leaf_hashes])

    def inclusion(self, index: int) -> Inclusion:
        """Return the path of one leaf; raises DataError where there is none."""
        size = len(self._levels[0])
        if not 0 <= index < size:
            raise DataError(f"example {index}: the tree holds examples 0 to {size - 1}")
        path: list[bytes] = []
        node = index
        for level in self._levels[:-1]:
            sibling = node ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            node >>= 1
        return Inclusion(index=index, size=size, path=tuple(path))


def prove_in_step(manifest: Manifest, order: Order, *, step: int, position: int) -> Inclusion:
    """Prove that the row at `position` of a step holds the example that the order puts there.

    Raises DataError where the step has no such position.
    """
    leaves = batch_leaves(manifest.leaf_hashes, order.step(step))
    return ExampleTree(leaves).inclusion(position)


def open_batch(
    tree: ExampleTree, arrays: Examples, indices: Int64[np.ndarray, " batch_size"]
) -> BatchOpening:
    """Gather the examples of a step from the whole set, each with its place in the data set."""
    checked = checked_examples(arrays, where="batch")
    rows = {name: array[indices] for name, array in checked.items()}
    return BatchOpening(rows, tuple(tree.inclusion(index) for index in indices.tolist()))


def verify_example(example: Examples, place: Inclusion, *, root: bytes, size: int) -> None:
    """Check that an example is in the set of `size` examples under `root`, at its place.

    Raises RefutedError where it is not.
    """
    _verify_leaf(_leaf_of(example), place, root=root, size=size, what=f"example {place.index}")


def verify_example_in_step(
    example: Examples, place: Inclusion, *, batch_root: bytes, batch_size: int
) -> None:
    """Check that an example was in the batch under `batch_root`, at row `place.index`.

    Raises RefutedError where it was not.
    """
    what = f"row {place.index} of the batch"
    _verify_leaf(_leaf_of(example), place, root=batch_root, size=batch_size, what=what)


def verify_batch(
    opening: BatchOpening, order: Order, *, step: int, data_root: bytes, step_root: bytes
) -> None:
    """Check that an opened batch is the one that the order gives a step, and its row commits.

    The examples are derived from the order alone; each is checked against the data root, then the
    batch root is computed from them. Raises RefutedError naming the first row that does not hold.
    """
    expected = order.step(step)
    count = example_count(opening.examples)
    if not count == len(opening.places) == len(expected):
        raise RefutedError(
            f"step {step}: {count} examples with {len(opening.places)} places opened, "
            f"the batch has {len(expected)}"
        )
    try:
        checked = checked_examples(opening.examples, where=f"step {step}")
    except DataError as error:
        raise RefutedError(str(error)) from error
    leaves: list[bytes] = []
    for row, data in enumerate(iter_example_bytes(checked)):
        place, leaf = opening.places[row], merkle.leaf_hash(data)
        if place.index != expected[row]:
            raise RefutedError(
                f"step {step}: row {row} holds example {place.index}, the order puts "
                f"example {expected[row]} there"
            )
        what = f"step {step}: row {row}, example {place.index}"
        _verify_leaf(leaf, place, root=data_root, size=order.examples, what=what)
        leaves.append(leaf)
    if merkle.tree_root(leaves) != step_root:
        raise RefutedError(f"step {step}: the batch root in the row is not that of its examples")


def verify_step_root(manifest: Manifest, order: Order, *, step: int, step_root: bytes) -> None:
    """Check a row's batch root against a manifest of the whole set, without any example.

    Raises RefutedError where it is another.
    """
    if batch_root(manifest.leaf_hashes, order.step(step)) != step_root:
        raise RefutedError(
            f"step {step}: the batch root in the row is not that of the examples of the order"
        )


def _leaf_of(example: Examples) -> bytes:
    rows = {name: np.asarray(value)[None] for name, value in example.items()}
    try:
        checked = checked_examples(rows, where="example")
    except DataError as error:
        raise RefutedError(str(error)) from error
    return merkle.leaf_hash(next(iter_example_bytes(checked)))


def _verify_leaf(leaf: bytes, place: Inclusion, *, root: bytes, size: int, what: str) -> None:
    if place.size != size:
        raise RefutedError(f"{what}: its path is for {place.size} leaves, the tree has {size}")
    try:
        found = merkle.root_from_inclusion(place.index, place.size, leaf, place.path)
    except AttestError as error:
        raise RefutedError(f"{what}: {error}") from error
    if found != root:
        raise RefutedError(f"{what}: not the example that the root commits")
