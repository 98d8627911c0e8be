import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.blake3_xla import blake3_tiles
from anh_jax.digest.kernels import xla_kernels
from anh_jax.digest.leaves import LeafHash, Messages, lay_leaves
from anh_jax.digest.sha256_xla import sha256_tiles

MESSAGES = st.builds(
    Messages,
    st.one_of(st.integers(1, 4), st.sampled_from([400, 20_000])),
    st.one_of(st.integers(0, 5000), st.sampled_from([16384, 31744])),
)
HASHES = st.sampled_from([blake3_tiles(xla_kernels()), sha256_tiles()])


@given(HASHES, st.lists(MESSAGES, min_size=1, max_size=8), st.integers(0, 9))
def test_every_leaf_has_a_row_and_room(leaf_hash: LeafHash, messages: list[Messages], first: int):
    batch = lay_leaves(leaf_hash, messages, first)
    rows = np.concatenate([leaves.reshape(-1) for leaves in batch.leaves])
    assert sorted(rows) == list(range(first, first + batch.rows))
    chunk = 0 if leaf_hash.chunks is None else leaf_hash.chunks.size
    lanes = {}
    for bucket, last in zip(batch.buckets, batch.operands.buckets, strict=True):
        at = 0
        for member in bucket.members:
            lengths = np.asarray(last.lengths)[at : at + messages[member].count]
            assert len(lengths) == messages[member].count
            lanes[member] = int(lengths[0])
            assert leaf_hash.blocks(lanes[member]) <= bucket.blocks
            at += messages[member].count
        assert at == len(last.lengths) == len(last.counters) == len(last.whole)
    for index, message in enumerate(messages):
        assert batch.full[index] * chunk + lanes.get(index, 0) == message.length
        assert batch.leaves[index].shape[0] == message.count
        assert batch.leaves[index].shape[1] == batch.full[index] + (index in lanes)


@given(HASHES, st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_few_leaves_of_any_lengths_are_one_bucket(leaf_hash: LeafHash, lengths: list[int]):
    batch = lay_leaves(leaf_hash, [Messages(1, length) for length in lengths], 0)
    assert len(batch.buckets) <= 1
