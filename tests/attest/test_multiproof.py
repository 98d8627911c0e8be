"""One proof for many leaves is worth their single RFC 6962 proofs, in fewer nodes."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.errors import FormatError, RefusedError
from attest.merkle import inclusion_path, tree_root, verify_inclusion
from attest.multiproof import fold, node_ranges, nodes_from_paths


def leaf(index: int) -> bytes:
    return hashlib.sha256(b"leaf %d" % index).digest()


LEAVES = [leaf(i) for i in range(130)]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    size = draw(st.integers(1, len(LEAVES)))
    leaves = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=9))
    sizes = draw(st.sets(st.integers(1, size - 1), max_size=4)) if size > 1 else set()
    return size, tuple(sorted(leaves)), tuple(sorted(sizes))


def nodes_of(size: int, leaves: tuple[int, ...], sizes: tuple[int, ...]) -> list[bytes]:
    return nodes_from_paths(size, leaves, sizes, lambda i, n: inclusion_path(i, n, LEAVES))


@given(shapes())
@settings(max_examples=120, deadline=None)
def test_proof_gives_root_prefixes_and_single_paths(shape) -> None:
    size, leaves, sizes = shape
    folded = fold(size, {i: LEAVES[i] for i in leaves}, sizes, nodes_of(*shape))
    assert folded.root == tree_root(LEAVES[:size])
    assert folded.prefixes == {s: tree_root(LEAVES[:s]) for s in sizes}
    for index in leaves:
        path = folded.path(index, size)
        verify_inclusion(index, size, LEAVES[index], path, folded.root)


@given(shapes())
@settings(max_examples=80, deadline=None)
def test_nodes_are_only_those_that_leaves_do_not_give(shape) -> None:
    size, leaves, _ = shape
    singles = {i: inclusion_path(i, size, LEAVES) for i in leaves}
    assert len(node_ranges(size, leaves, ())) <= sum(len(p) for p in singles.values())
    for range_ in node_ranges(size, leaves, ()):
        assert not any(range_.start <= i < range_.end for i in leaves)


@given(shapes(), st.data())
@settings(max_examples=80, deadline=None)
def test_changed_missing_spare_or_moved_node_is_refused(shape, data: st.DataObject) -> None:
    size, leaves, sizes = shape
    nodes = nodes_of(*shape)
    known = {i: LEAVES[i] for i in leaves}
    root = tree_root(LEAVES[:size])
    with pytest.raises(RefusedError) as caught:
        fold(size, known, sizes, [*nodes, bytes(32)])
    assert caught.value.check == "inclusion"
    if not nodes:
        return
    at = data.draw(st.integers(0, len(nodes) - 1))
    with pytest.raises(RefusedError):
        fold(size, known, sizes, nodes[:at] + nodes[at + 1 :])
    flipped = bytes([nodes[at][0] ^ 1]) + nodes[at][1:]
    assert fold(size, known, sizes, [*nodes[:at], flipped, *nodes[at + 1 :]]).root != root
    if len(nodes) > 1:
        assert fold(size, known, sizes, [*nodes[1:], nodes[0]]).root != root


@given(shapes())
@settings(max_examples=50, deadline=None)
def test_leaf_at_another_index_gives_another_root(shape) -> None:
    size, leaves, sizes = shape
    for index in leaves:
        known = {i: LEAVES[i] for i in leaves}
        known[index] = leaf(10**6)
        assert fold(size, known, sizes, nodes_of(*shape)).root != tree_root(LEAVES[:size])


@pytest.mark.parametrize(
    ("size", "leaves", "sizes", "nodes"),
    [
        (0, {0: bytes(32)}, (), []),
        (2**63, {0: bytes(32)}, (), [bytes(32)] * 63),
        (4, {}, (), [bytes(32)]),
        (4, {4: bytes(32)}, (), [bytes(32)] * 2),
        (4, {-1: bytes(32)}, (), [bytes(32)] * 2),
        (4, {0: bytes(32)}, (0,), [bytes(32)] * 2),
        (4, {0: bytes(32)}, (4,), [bytes(32)] * 2),
        (4, {0: bytes(32)}, (), [bytes(31), bytes(32)]),
    ],
)
def test_shapes_that_no_tree_has_are_refused(size, leaves, sizes, nodes) -> None:
    with pytest.raises(FormatError):
        fold(size, leaves, sizes, nodes)


def test_ten_records_of_a_million_need_about_forty_nodes() -> None:
    size = 10**6
    leaves = (0, 1, 2, 3, *range(size - 6, size))
    assert len(node_ranges(size, leaves, (size - 1,))) <= 45


def test_largest_tree_folds_without_deep_recursion() -> None:
    size = 2**63 - 1
    ranges = node_ranges(size, (0, size - 1), (size // 3,))
    folded = fold(size, {0: leaf(0), size - 1: leaf(1)}, (size // 3,), [leaf(2)] * len(ranges))
    assert len(folded.root) == 32
