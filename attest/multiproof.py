"""One inclusion proof for several leaves of a tree, and the roots of some of its prefixes.

The RFC 6962 paths of a run's ten records share most of their nodes: together they need about 40
hashes in a tree of a million leaves, apart 200. Nodes are listed left to right, and only those that
cannot be computed from the leaves: for given leaves and sizes there is exactly one list.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from attest.errors import FormatError, RefusedError
from attest.merkle import (
    HASH_BYTES,
    MAX_SIZE,
    LeafRange,
    inclusion_ranges,
    node_hash,
)

__all__ = ["Fold", "fold", "node_ranges", "nodes_from_paths"]


@dataclass(frozen=True, slots=True)
class Fold:
    """Hold what a proof computes: the root, the roots of prefixes by size, every hash by range."""

    root: bytes
    prefixes: Mapping[int, bytes]
    hashes: Mapping[LeafRange, bytes]

    def path(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the RFC 6962 inclusion path of one of the proven leaves."""
        return tuple(self.hashes[r] for r in inclusion_ranges(index, size))


def node_ranges(size: int, leaves: Collection[int], sizes: Collection[int]) -> list[LeafRange]:
    """List the ranges whose roots the proof must carry, left to right."""
    _check_shape(size, leaves, sizes)
    return list(_missing(LeafRange(0, size), leaves, sizes))


def nodes_from_paths(
    size: int,
    leaves: Collection[int],
    sizes: Collection[int],
    inclusion: Callable[[int, int], Sequence[bytes]],
) -> list[bytes]:
    """Make the proof's nodes from single inclusion paths: `inclusion(index, size)`.

    A node that a prefix of `s` leaves needs lies on the path of leaf `s` or of the leaf before it.
    """
    wanted = node_ranges(size, leaves, sizes)
    known: dict[LeafRange, bytes] = {}
    neighbours = {s - 1 for s in sizes} | set(sizes)
    for index in sorted(set(leaves) | neighbours):
        ranges = inclusion_ranges(index, size)
        known.update(zip(ranges, inclusion(index, size), strict=True))
    return [known[r] for r in wanted]


def fold(
    size: int, leaves: Mapping[int, bytes], sizes: Collection[int], nodes: Sequence[bytes]
) -> Fold:
    """Compute the root of `size` leaves, and of the first `s` for every `s` in `sizes`.

    `leaves` maps log indices to leaf hashes. That the root is the right one is for the caller to
    compare; a prefix root is right whenever the root is, by collision resistance.

    Raises:
        FormatError: for indices or sizes outside the tree, or a node that is no hash.
        RefusedError: (check `inclusion`) if nodes are missing or left over.
    """
    _check_shape(size, leaves, sizes)
    if any(len(node) != HASH_BYTES for node in nodes):
        raise FormatError("proof node has not 32 bytes", code="hash length")
    folding = _Folding(leaves, sizes, iter(nodes))
    root = folding.walk(0, size)
    if next(folding.nodes, None) is not None:
        raise RefusedError("inclusion: the proof has nodes to spare", check="inclusion")
    return Fold(root, folding.prefixes, folding.hashes)


class _Folding:
    def __init__(
        self, leaves: Mapping[int, bytes], sizes: Collection[int], nodes: Iterator[bytes]
    ) -> None:
        self.leaves = leaves
        self.sizes = sizes
        self.nodes = nodes
        self.prefixes: dict[int, bytes] = {}
        self.hashes: dict[LeafRange, bytes] = {}

    def walk(self, start: int, end: int) -> bytes:
        here = LeafRange(start, end)
        if not _divided(here, self.leaves, self.sizes):
            value = next(self.nodes, None)
            if value is None:
                raise RefusedError("inclusion: the proof lacks a node", check="inclusion")
        elif end - start == 1:
            value = self.leaves[start]
        else:
            middle = _middle(here)
            left = self.walk(start, middle)
            value = node_hash(left, self.walk(middle, end))
            self._extend_prefixes(here, left)
        self.hashes[here] = value
        return value

    def _extend_prefixes(self, here: LeafRange, left: bytes) -> None:
        # RFC 6962 2.1: a prefix that ends in the right half splits where the whole range does.
        middle = _middle(here)
        for size in self.sizes:
            if size == middle:
                self.prefixes[size] = left
            elif middle < size < here.end:
                self.prefixes[size] = node_hash(left, self.prefixes[size])


def _missing(
    here: LeafRange, leaves: Collection[int], sizes: Collection[int]
) -> Iterator[LeafRange]:
    if not _divided(here, leaves, sizes):
        yield here
    elif here.end - here.start > 1:
        middle = _middle(here)
        yield from _missing(LeafRange(here.start, middle), leaves, sizes)
        yield from _missing(LeafRange(middle, here.end), leaves, sizes)


def _divided(here: LeafRange, leaves: Collection[int], sizes: Collection[int]) -> bool:
    """Say whether a range holds a proven leaf or ends a prefix inside: then it is computed."""
    return any(here.start <= i < here.end for i in leaves) or any(
        here.start < s < here.end for s in sizes
    )


def _middle(here: LeafRange) -> int:
    return here.start + (1 << ((here.end - here.start - 1).bit_length() - 1))


def _check_shape(size: int, leaves: Collection[int], sizes: Collection[int]) -> None:
    if not 0 < size <= MAX_SIZE:
        raise FormatError(f"no proof over a tree of {size} leaves", code="size")
    if not leaves:
        raise FormatError("a proof of no leaf proves nothing", code="index")
    if any(not 0 <= i < size for i in leaves):
        raise FormatError(f"a proven leaf lies outside the tree of {size}", code="index")
    if any(not 0 < s < size for s in sizes):
        raise FormatError(f"a proven size is not below the tree's {size}", code="size")
