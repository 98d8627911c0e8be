import functools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.digest.blake3_xla import Blake3, Mode, derive_key_mode, hash_messages
from anh_jax.digest.kernels import IV, Flags, xla_kernels
from anh_jax.digest.leaves import Messages, hash_leaves, lay_leaves
from anh_jax.digest.merge_list import MergeLevels, merge_chunks, run_merges

CONTEXT = "anh v1 tile"
EDGES = (
    0, 1, 2, 3, 4, 63, 64, 65, 127, 128, 129, 960, 961, 1023, 1024, 1025, 1087, 1088, 1089,
    2047, 2048, 2049, 3071, 3072, 3073, 4095, 4096, 4097, 5120, 6145, 7168, 8192, 8193,
    15360, 16384, 16385, 31744, 31745, 65536,
)  # fmt: skip


def as_words(messages: Sequence[bytes]) -> np.ndarray:
    """Return equally long messages as little endian words, zero padded."""
    width = -(-len(messages[0]) // 4) * 4
    padded = b"".join(message.ljust(width, b"\0") for message in messages)
    return np.frombuffer(padded, "<u4").reshape(len(messages), width // 4)


def hash_all(hasher: Blake3, messages: Sequence[bytes]) -> list[bytes]:
    """Hash messages of any lengths in one program, as a tree of many tensors is hashed."""
    roots = _program(hasher, tuple(map(len, messages)))
    return [row.tobytes() for row in np.asarray(roots([as_words([m]) for m in messages]))]


_PROGRAMS: dict = {}


def _program(hasher: Blake3, lengths: tuple[int, ...]):
    key = (hasher.tiles.flags, hasher.tiles.key.tobytes(), hasher.lanes, lengths)
    if key not in _PROGRAMS:
        batch = lay_leaves(hasher, [Messages(1, length) for length in lengths], 0)
        levels = MergeLevels(batch.rows)
        roots = [merge_chunks(levels, [leaves])[0] for leaves in batch.leaves]
        finished = levels.finish(hasher.lanes)
        rows = finished.places[np.concatenate(roots)]
        pairs, kinds = finished.merges.pairs, finished.merges.kinds

        @jax.jit
        def program(words: list[jax.Array]) -> jax.Array:
            operands = jax.tree.map(jnp.asarray, batch.operands)
            pool = hash_leaves(hasher, batch, words, operands)
            return run_merges(pool, jnp.asarray(pairs), jnp.asarray(kinds), hasher.merge)[rows]

        _PROGRAMS[key] = program
    return _PROGRAMS[key]


@functools.cache
def derive_key_hasher(lanes: int = 64) -> Blake3:
    mode = derive_key_mode(CONTEXT)
    return Blake3(mode, mode, xla_kernels(lanes))


def expected(messages: Sequence[bytes]) -> list[bytes]:
    return [blake3(message, derive_key_context=CONTEXT).digest() for message in messages]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_edge_of_blocks_and_chunks_equals_the_blake3_package(seed: int):
    random = np.random.default_rng(seed)
    messages = [random.bytes(length) for length in EDGES]
    assert hash_all(derive_key_hasher(), messages) == expected(messages)


def test_every_length_up_to_a_chunk_equals_the_blake3_package():
    lengths = np.arange(1025, dtype=np.uint32)
    messages = [bytes(i % 251 for i in range(length)) for length in lengths]
    words = as_words([message.ljust(1024, b"\0") for message in messages])
    last = jax.jit(derive_key_hasher(2048).last)
    rows = last(words, lengths, np.zeros_like(lengths), np.ones_like(lengths))
    assert [row.tobytes() for row in np.asarray(rows)] == expected(messages)


def test_five_million_bytes_equal_the_blake3_package():
    message = np.random.default_rng(1).bytes(5_000_000)
    hashed = jax.jit(lambda words: hash_messages(words, len(message), derive_key_mode(CONTEXT)))
    assert np.asarray(hashed(as_words([message])))[0].tobytes() == expected([message])[0]


def test_equal_messages_are_hashed_side_by_side():
    random = np.random.default_rng(2)
    messages = [random.bytes(3000) for _ in range(7)]
    mode = derive_key_mode(CONTEXT)
    hashed = jax.jit(lambda words: hash_messages(words, 3000, mode, xla_kernels(4)))
    rows = np.asarray(hashed(as_words(messages)))
    assert [row.tobytes() for row in rows] == expected(messages)


@pytest.mark.parametrize(
    "name",
    [
        "derive_key",
        pytest.param("hash", marks=pytest.mark.full),
        pytest.param("keyed_hash", marks=pytest.mark.full),
    ],
)
def test_official_vectors(vectors: Path, name: str):
    official = json.loads((vectors / "blake3.json").read_text())
    modes = {
        "hash": Mode(IV, 0),
        "keyed_hash": Mode(np.frombuffer(official["key"].encode(), "<u4"), 16),
        "derive_key": derive_key_mode(official["context_string"]),
    }
    hasher = Blake3(modes[name], modes[name], xla_kernels(64))
    cases = official["cases"]
    assert len(cases) >= 35
    messages = [bytes(i % 251 for i in range(case["input_len"])) for case in cases]
    assert [root.hex() for root in hash_all(hasher, messages)] == [c[name][:64] for c in cases]


def test_rounds_stay_a_loop_in_the_compiled_program():
    # Unrolled, XLA on CPU takes about a hundred times longer for each round.
    words, counters = jnp.zeros((8, 256), jnp.uint32), jnp.zeros(8, jnp.uint32)
    key = jnp.asarray(IV)
    chunks = jax.jit(lambda w, c, k: xla_kernels().chunks(w, c, k, int(Flags.DERIVE_KEY_MATERIAL)))
    text = chunks.lower(words, counters, key).compile().as_text()
    assert '"known_trip_count":{"n":"7"}' in text
    assert '"known_trip_count":{"n":"16"}' in text
