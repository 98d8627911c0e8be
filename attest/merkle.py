"""RFC 6962 Merkle trees over SHA-256: roots, inclusion, consistency, subtrees, a growing frontier.

RFC 9162 hashes the same way. Subtrees `[start, end)` follow Merkle Tree Certificates
(draft-ietf-plants-merkle-tree-certs, section 4): `start` is a multiple of the smallest power of
two that is at least `end - start`. A proof that does not hold raises RefusedError; a value that no
proof can have (sizes, indices, hash lengths) raises FormatError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from attest.errors import FormatError, RefusedError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LeafRange:
    """The leaves `start` (included) to `end` (excluded)."""

    start: int
    end: int


def leaf_hash(leaf: bytes) -> bytes:
    """Hash one leaf: SHA-256(0x00 || leaf) (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two children: SHA-256(0x01 || left || right) (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes; the empty tree has SHA-256 of nothing."""
    row = list(leaf_hashes)
    if not row:
        return EMPTY_ROOT
    while len(row) > 1:
        # An odd last node moves up unchanged: RFC 6962 splits at the largest power of two.
        odd = row[-1:] if len(row) % 2 else []
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)] + odd
    return row[0]


@dataclass(slots=True)
class Frontier:
    """Keep the roots of the full subtrees of a growing tree; append and root cost O(log n)."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list[bytes])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        _check_hash(leaf, "leaf hash")
        bits = self.size
        while bits & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            bits >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def append_subtree(self, root: bytes, height: int) -> None:
        """Add 2^height leaves by the root of their subtree; the size must be a multiple of that."""
        _check_hash(root, "subtree root")
        if self.size & ((1 << height) - 1):
            raise FormatError(f"no subtree of height {height} begins at {self.size}", code="range")
        bits = self.size >> height
        while bits & 1:
            root = node_hash(self.peaks.pop(), root)
            bits >>= 1
        self.peaks.append(root)
        self.size += 1 << height

    def root(self) -> bytes:
        """Return the root over everything appended so far."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent frontier of the same tree."""
        return Frontier(self.size, list(self.peaks))


# --- making proofs: which ranges, then their roots ---


def inclusion_ranges(index: int, size: int) -> list[LeafRange]:
    """List the ranges whose roots are the inclusion path of leaf `index` (RFC 6962 2.1.1)."""
    _check_index(index, size)
    ranges: list[LeafRange] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append(LeafRange(middle, high))
            high = middle
        else:
            ranges.append(LeafRange(low, middle))
            low = middle
    return ranges[::-1]


def subtree_consistency_ranges(start: int, end: int, size: int) -> list[LeafRange]:
    """List the ranges whose roots prove that subtree `[start, end)` lies in the tree `size`.

    With `start` 0 this is RFC 6962 section 2.1.2.
    """
    _check_subtree(start, end, size)
    if start == end:
        return []
    ranges: list[LeafRange] = []
    own: list[LeafRange] = []
    low, high = 0, size
    while (low, high) != (start, end):
        middle = low + _split(high - low)
        if end <= middle:
            ranges.append(LeafRange(middle, high))
            high = middle
            continue
        ranges.append(LeafRange(low, middle))
        low = middle
        if start < middle:
            # The subtree is cut: the verifier does not know the root of what remains of it.
            start = middle
            own = [LeafRange(middle, end)]
    return own + ranges[::-1]


def inclusion_path(index: int, size: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """Return the inclusion path of leaf `index` in the tree of the first `size` leaf hashes."""
    _check_have(leaf_hashes, size)
    return [tree_root(leaf_hashes[r.start : r.end]) for r in inclusion_ranges(index, size)]


def consistency_path(old: int, new: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is a prefix of the tree of `new` leaves."""
    return subtree_consistency_path(0, old, new, leaf_hashes)


def subtree_inclusion_path(
    index: int, start: int, end: int, leaf_hashes: Sequence[bytes]
) -> list[bytes]:
    """Return the inclusion path of leaf `index` in the subtree `[start, end)`."""
    _check_subtree(start, end, end)
    return inclusion_path(index - start, end - start, leaf_hashes[start:end])


def subtree_consistency_path(
    start: int, end: int, size: int, leaf_hashes: Sequence[bytes]
) -> list[bytes]:
    """Return the proof that the subtree `[start, end)` lies in the tree of `size` leaves."""
    _check_have(leaf_hashes, size)
    ranges = subtree_consistency_ranges(start, end, size)
    return [tree_root(leaf_hashes[r.start : r.end]) for r in ranges]


# --- checking proofs: what a relying party runs ---


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """Compute the root that `path` claims for leaf hash `leaf` (RFC 9162 section 2.1.3.2)."""
    _check_index(index, size)
    _check_hash(leaf, "leaf hash")
    node, last, root = index, size - 1, leaf
    for sibling in path:
        _check_hash(sibling, "inclusion path")
        _hold(last != 0, "inclusion", "path is longer than the tree is high")
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    _hold(last == 0, "inclusion", "path is shorter than the tree is high")
    return root


def verify_inclusion(
    index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes
) -> None:
    """Check that leaf hash `leaf` is leaf `index` of the tree `(size, root)`."""
    _check_hash(root, "root")
    claimed = root_from_inclusion(index, size, leaf, path)
    _hold(claimed == root, "inclusion", f"path of leaf {index} does not lead to the root")


def verify_consistency(
    old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree `(old, old_root)` is a prefix of `(new, new_root)` (RFC 9162 2.1.4.2)."""
    _check_hash(new_root, "new root")
    _hold(new or new_root == EMPTY_ROOT, "consistency", "the empty tree has one root")
    verify_subtree_consistency(0, old, new, path, old_root, new_root)


def verify_subtree_inclusion(
    index: int, start: int, end: int, leaf: bytes, path: Sequence[bytes], root: bytes
) -> None:
    """Check that leaf hash `leaf` is leaf `index` of the whole tree, in subtree `[start, end)`."""
    _check_subtree(start, end, end)
    verify_inclusion(index - start, end - start, leaf, path, root)


def verify_subtree_consistency(
    start: int, end: int, size: int, path: Sequence[bytes], subtree_root: bytes, root: bytes
) -> None:
    """Check that `subtree_root` is the root of leaves `[start, end)` of the tree `(size, root)`."""
    _check_subtree(start, end, size)
    if start == end:
        # No leaves: true of every tree, so `root` is not looked at.
        _hold(subtree_root == EMPTY_ROOT and not path, "consistency", "the empty tree has one root")
        return
    for value in (subtree_root, root, *path):
        _check_hash(value, "consistency proof")
    first, last, top = start, end - 1, size - 1
    # Skip the levels at which the subtree's last node has no sibling inside the proof.
    while first != last and (last & 1 or last == top):
        first, last, top = first >> 1, last >> 1, top >> 1
    hashes = list(path)
    # A subtree that is a node of the tree starts the proof itself; otherwise a part of it does.
    if first != last:
        _hold(bool(hashes), "consistency", "proof is empty")
    old = new = subtree_root if first == last else hashes.pop(0)
    for value in hashes:
        _hold(top != 0, "consistency", "proof is longer than the tree is high")
        if last & 1 or last == top:
            old = node_hash(value, old) if first < last else old
            new = node_hash(value, new)
            while last and not last & 1:
                first, last, top = first >> 1, last >> 1, top >> 1
        else:
            new = node_hash(new, value)
        first, last, top = first >> 1, last >> 1, top >> 1
    _hold(top == 0, "consistency", "proof is shorter than the tree is high")
    _hold(old == subtree_root, "consistency", "proof does not lead to the old root")
    _hold(new == root, "consistency", "proof does not lead to the new root")


def _split(size: int) -> int:
    """Return the largest power of two below `size` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _hold(holds: object, check: str, message: str) -> None:
    if not holds:
        raise RefusedError(f"{check} proof refused: {message}", check=check)


def _check_hash(value: bytes, what: str) -> None:
    if len(value) != HASH_BYTES:
        raise FormatError(f"{what} has {len(value)} bytes, not {HASH_BYTES}", code="hash length")


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size <= MAX_SIZE:
        raise FormatError(f"no leaf {index} in a tree of {size}", code="index")


def _check_subtree(start: int, end: int, size: int) -> None:
    if not 0 <= start <= end <= size <= MAX_SIZE:
        raise FormatError(f"no leaves [{start}, {end}) in a tree of {size}", code="range")
    if end > start and start % (1 << (end - start - 1).bit_length()):
        raise FormatError(f"[{start}, {end}) is not aligned as a subtree", code="range")


def _check_have(leaf_hashes: Sequence[bytes], size: int) -> None:
    if size > len(leaf_hashes):
        raise FormatError(f"tree of {size} needs more than {len(leaf_hashes)} leaves", code="size")
