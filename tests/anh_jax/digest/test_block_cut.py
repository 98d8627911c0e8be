import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.block_cut import block_cut

AXES = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 4]), st.sampled_from([0, 1])),
    min_size=0,
    max_size=3,
)
# The last axis in units of 32 bytes: half of them are no whole blocks.
LAST = st.tuples(st.integers(1, 20), st.sampled_from([1, 2, 4]), st.sampled_from([0, 1]))


@given(AXES, LAST, st.sampled_from([1, 2, 4]))
def test_places_are_those_of_the_tiles_bytes(
    axes: list[tuple[int, int, int]], last: tuple[int, int, int], itemsize: int
):
    """Along each axis: the extent of a tile, the tiles that are hashed, those left out before."""
    tile = [extent for extent, _, _ in axes] + [last[0] * 32 // itemsize]
    grid = [count for _, count, _ in [*axes, last]]
    before = [left for _, _, left in [*axes, last]]
    dims = [e * (n + b) for e, n, b in zip(tile, grid, before, strict=True)]
    places = np.arange(math.prod(dims) * itemsize).reshape(*dims, itemsize)
    part = places[tuple(slice(e * b, None) for e, b in zip(tile, before, strict=True))]
    pairs = [n for pair in zip(grid, tile, strict=True) for n in pair]
    order = (*range(0, len(pairs), 2), *range(1, len(pairs), 2), len(pairs))
    tiles = part.reshape(*pairs, itemsize).transpose(order).reshape(math.prod(grid), -1)

    cut = block_cut(dims, tile, grid, itemsize)
    blocks = tiles[:, : tiles.shape[1] // 64 * 64].reshape(len(tiles), -1, 64)
    starts = blocks[:, :, 0]
    whole = tiles.shape[1] % 64 == 0 and (np.diff(blocks) == 1).all() and not (starts % 64).any()
    if cut is None:
        # A cut last axis may have whole blocks in some rows by chance: those are not asked for.
        assert not whole or tiles.shape[1] <= 1024 or tile[-1] * itemsize % 64
        return
    assert whole
    assert (cut.tiles, cut.blocks) == blocks.shape[:2]
    assert cut.chunks == tiles.shape[1] // 1024
    first = int(tiles[0, 0]) // 64
    found = first + cut.place(np.arange(cut.tiles)[:, None], np.arange(cut.blocks)[None])
    assert np.array_equal(found, starts // 64)


def test_tensors_too_large_for_32_bits_and_tiles_of_one_chunk_are_left_out():
    tile, grid = (64, 256), (2, 2)
    assert block_cut((1 << 15, 1 << 15), tile, grid, 1) is not None
    assert block_cut((1 << 15, 1 << 16), tile, grid, 1) is None
    assert block_cut((4, 512), (2, 256), grid, 4) is not None
    assert block_cut((2, 512), (1, 256), grid, 4) is None
