from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.kernels import in_slabs
from anh_jax.digest.merge_list import Kind, MergeLevels, merge_chunks, merge_nodes, run_merges

KINDS = {Kind.PARENT: "p", Kind.TILE: "t", Kind.NODE: "n"}


def left_full(leaves: list[str]) -> str:
    """Write BLAKE3's tree top down: the left subtree is the largest complete one."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << ((len(leaves) - 1).bit_length() - 1)
    return "p(" + left_full(leaves[:left]) + left_full(leaves[left:]) + ")"


def run_as_text(levels: MergeLevels, lanes: int) -> Any:
    """Run a merge list on texts, slab by slab as the device does."""
    finished = levels.finish(lanes)
    pool = [chr(0x4E00 + row) for row in range(levels.pool)]
    for pairs, kind in zip(finished.merges.pairs, finished.merges.kinds, strict=True):
        assert len(pairs) <= lanes
        pool += [f"{KINDS[Kind(kind)]}({pool[left]}{pool[right]})" for left, right in pairs]
    return lambda row: pool[finished.places[row]]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 20),
)
def test_chunk_trees_are_left_full_whatever_the_slabs(shapes: list[tuple[int, int]], lanes: int):
    start, chunks = 0, []
    for count, width in shapes:
        chunks.append(start + np.arange(count * width).reshape(count, width))
        start += count * width
    levels = MergeLevels(start)
    roots = merge_chunks(levels, chunks)
    text = run_as_text(levels, lanes)
    for rows, root in zip(chunks, roots, strict=True):
        for row, top in zip(rows, root, strict=True):
            tree = left_full([chr(0x4E00 + leaf) for leaf in row])
            assert text(top) == (tree if len(row) == 1 else "t" + tree[1:])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 20))
def test_node_trees_are_perfect_whatever_the_slabs(heights: list[int], lanes: int):
    edges = np.cumsum([0, *[1 << height for height in heights]])
    leaves = [np.arange(a, b)[None] for a, b in zip(edges, edges[1:], strict=False)]
    levels = MergeLevels(int(edges[-1]))
    roots = merge_nodes(levels, leaves)
    text = run_as_text(levels, lanes)
    for rows, (root,) in zip(leaves, roots, strict=True):
        expected = left_full([chr(0x4E00 + leaf) for leaf in rows[0]]).replace("p", "n")
        assert text(root) == expected


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_device_runs_a_merge_list_as_it_is_written(lanes: int):
    levels = MergeLevels(11)
    (root,) = merge_chunks(levels, [np.arange(11)[None]])
    finished = levels.finish(lanes)

    def merge(words: jax.Array, kind: jax.Array) -> jax.Array:
        return words[:, :8] * 3 + words[:, 8:] * 5 + kind.astype(jnp.uint32)

    leaves = np.random.default_rng(0).integers(0, 2**32, (11, 8), np.uint32)
    merges = finished.merges
    pool = jax.jit(lambda p, a, b: run_merges(p, a, b, merge))(leaves, merges.pairs, merges.kinds)
    rows = [*leaves]
    for pairs, kind in zip(merges.pairs, merges.kinds, strict=True):
        rows += [
            rows[a] * np.uint32(3) + rows[b] * np.uint32(5) + np.uint32(kind) for a, b in pairs
        ]
    assert (np.asarray(pool) == np.stack(rows)).all()
    assert finished.places[root[0]] >= 11


@pytest.mark.parametrize("count", [1, 4, 5, 7, 8])
def test_slabs_cover_every_row_once(count: int):
    rows = np.arange(count * 8, dtype=np.uint32).reshape(count, 8)
    result = in_slabs(lambda a, b: a + b[:, None], 4, jnp.asarray(rows), jnp.asarray(rows[:, 0]))
    assert (np.asarray(result) == rows + rows[:, :1]).all()
