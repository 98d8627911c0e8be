import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.digest.leaves import Messages, hash_leaves, lay_leaves
from anh_jax.digest.sha256_xla import Sha256, hash_lanes, hash_messages

LENGTHS = (0, 1, 3, 4, 54, 55, 63, 64, 118, 119, 1000, 1024, 4096, 16384, 31744)
HASHER = Sha256(tile_tag=16, node_tag=17, lanes=32)
BATCH = lay_leaves(HASHER, [Messages(1, length) for length in LENGTHS], 0)


@jax.jit
def digests(words: list[jax.Array]) -> jax.Array:
    return hash_leaves(HASHER, BATCH, words, jax.tree.map(jnp.asarray, BATCH.operands))


def as_words(messages: Sequence[bytes]) -> np.ndarray:
    width = -(-len(messages[0]) // 4) * 4
    padded = b"".join(message.ljust(width, b"\0") for message in messages)
    return np.frombuffer(padded, "<u4").reshape(len(messages), width // 4)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_length_equals_hashlib(seed: int):
    random = np.random.default_rng(seed)
    messages = [random.bytes(length) for length in LENGTHS]
    pool = np.asarray(digests([as_words([message]) for message in messages]))
    for message, (row,) in zip(messages, BATCH.leaves, strict=True):
        assert pool[row[0]].tobytes() == hashlib.sha256(b"\x10" + message).digest()


def test_nodes_are_tagged_apart_from_tiles():
    words = np.arange(80, dtype=np.uint32).reshape(5, 16)
    nodes = np.asarray(jax.jit(HASHER.merge)(words, np.int32(2)))
    tiles = np.asarray(jax.jit(lambda w: hash_messages(w, 64, HASHER.tile_tag))(words))
    for row, node, tile in zip(words, nodes, tiles, strict=True):
        assert node.tobytes() == hashlib.sha256(b"\x11" + row.tobytes()).digest()
        assert tile.tobytes() == hashlib.sha256(b"\x10" + row.tobytes()).digest()


def test_every_place_of_the_padding_in_a_block_equals_hashlib():
    lengths = np.arange(200, dtype=np.uint32)
    messages = [bytes(i % 251 for i in range(length)) for length in lengths]
    words = as_words([message.ljust(256, b"\0") for message in messages])
    rows = np.asarray(jax.jit(lambda w, n: hash_lanes(w, n, 16))(words, lengths))
    for message, row in zip(messages, rows, strict=True):
        assert row.tobytes() == hashlib.sha256(b"\x10" + message).digest()
