"""BLAKE3 in Pallas, interpreted: the published vectors, the package, and XLA's kernels agree."""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from anh_jax.digest.blake3_xla import derive_key_mode
from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.host import tree_digest
from anh_jax.digest.kernels import CHUNK_BYTES, IV, Flags, Kernels, xla_kernels
from anh_jax.digest.pallas_blake3 import compress_lanes
from anh_jax.digest.pallas_gpu import gpu_kernels
from anh_jax.digest.pallas_tpu import tpu_kernels

PLATFORMS = ("gpu", "tpu")
KEYED_HASH = 16
# More than one step of every grid, and the last step is not full. One shape, so few compilations.
ROWS = 2500


@functools.cache
def jitted(platform: str) -> Kernels:
    """Return a platform's kernels in interpret mode."""
    kernels = {
        "gpu": lambda: gpu_kernels("interpreted"),
        "tpu": lambda: tpu_kernels("interpreted"),
        "xla": xla_kernels,
    }[platform]()
    # Pallas' kernels read the flags from memory: traced, they are one compilation for all modes.
    static = 3 if platform == "xla" else ()
    return Kernels(jax.jit(kernels.chunks, static_argnums=static), jax.jit(kernels.parents), 0)


def padded(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.zeros((ROWS - len(rows), *rows.shape[1:]), np.uint32)])


def words_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<u4").astype(np.uint32)


def digests(platform: str, messages: Sequence[bytes], key: np.ndarray, flags: int) -> list[bytes]:
    """Hash messages of two or more full chunks: kernels below, the tree's order here."""
    kernels = jitted(platform)
    counts = [len(message) // CHUNK_BYTES for message in messages]
    words = words_of(b"".join(messages)).reshape(-1, 256)
    counters = np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])
    values = np.asarray(kernels.chunks(padded(words), padded(counters), jnp.asarray(key), flags))
    starts = np.cumsum([0, *counts])
    levels = [values[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]

    def merged(pairs: list[np.ndarray], now: int) -> list[np.ndarray]:
        rows = padded(np.concatenate(pairs))
        result = np.asarray(kernels.parents(rows, jnp.asarray(key), np.uint32(now)))
        return np.split(result[: sum(map(len, pairs))], np.cumsum([*map(len, pairs)])[:-1])

    parent = flags | Flags.PARENT
    while any(len(level) > 2 for level in levels):
        tall = [index for index, level in enumerate(levels) if len(level) > 2]
        pairs = [levels[i][: len(levels[i]) // 2 * 2].reshape(-1, 16) for i in tall]
        for index, result in zip(tall, merged(pairs, parent), strict=True):
            carried = levels[index][len(levels[index]) // 2 * 2 :]
            levels[index] = np.concatenate([result, carried])
    roots = merged([level.reshape(1, 16) for level in levels], parent | Flags.ROOT)
    return [root[0].astype("<u4").tobytes() for root in roots]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_published_vectors_of_whole_chunks_hold(platform: str, vectors: Path) -> None:
    published = json.loads((vectors / "blake3.json").read_bytes())
    cases = [
        case
        for case in published["cases"]
        if case["input_len"] > CHUNK_BYTES and not case["input_len"] % CHUNK_BYTES
    ]
    assert len(cases) == 10
    messages = [bytes(i % 251 for i in range(case["input_len"])) for case in cases]
    derive = derive_key_mode(published["context_string"])
    modes = {
        "hash": (IV, 0),
        "keyed_hash": (words_of(published["key"].encode()), KEYED_HASH),
        "derive_key": (derive.key, derive.flags),
    }
    for mode, (key, flags) in modes.items():
        expected = [bytes.fromhex(case[mode])[:32] for case in cases]
        assert digests(platform, messages, key, flags) == expected


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_published_vector_of_one_block_holds(platform: str, vectors: Path) -> None:
    published = json.loads((vectors / "blake3.json").read_bytes())
    (case,) = [case for case in published["cases"] if case["input_len"] == 64]
    flags = np.uint32(Flags.CHUNK_START | Flags.CHUNK_END | Flags.ROOT)
    rows = padded(words_of(bytes(range(64))).reshape(1, 16))
    digest = np.asarray(jitted(platform).parents(rows, jnp.asarray(IV), flags))[0]
    assert digest.astype("<u4").tobytes() == bytes.fromhex(case["hash"])[:32]


@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=15)
@given(key=st.binary(min_size=32, max_size=32), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_keyed_messages_hash_as_the_package_hashes_them(
    platform: str, key: bytes, seed: int, data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=12))
    rng = np.random.default_rng(seed)
    messages = [rng.bytes(count * CHUNK_BYTES) for count in counts]
    expected = [blake3(message, key=key).digest() for message in messages]
    assert digests(platform, messages, words_of(key), KEYED_HASH) == expected


@pytest.mark.parametrize("platform", PLATFORMS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), flags=st.integers(0, 2**32 - 1))
def test_every_row_of_a_ragged_grid_is_that_of_the_xla_kernels(
    platform: str, seed: int, flags: int
) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (ROWS, 256), np.uint32)
    counters = rng.integers(0, 2**32, ROWS, np.uint32)
    key = jnp.asarray(rng.integers(0, 2**32, 8, np.uint32))
    for one in ("chunks", "parents"):
        results = [
            getattr(jitted(each), one)(words, counters, key, 0)
            if one == "chunks"
            else getattr(jitted(each), one)(words[:, :16], key, np.uint32(flags))
            for each in (platform, "xla")
        ]
        assert np.array_equal(*map(np.asarray, results))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_single_row_needs_no_neighbours(platform: str) -> None:
    words = np.arange(256, dtype=np.uint32)[None]
    counters, key = np.array([7], np.uint32), jnp.asarray(IV)
    alone = jitted(platform).chunks(words, counters, key, 0)
    among = jitted("xla").chunks(padded(words), padded(counters), key, 0)
    assert alone.shape == (1, 8)
    assert np.array_equal(alone[0], among[0])


def test_unrolled_rounds_are_the_same_arithmetic() -> None:
    """The form that accelerators compile, one operation at a time: XLA cannot fuse it then."""
    words = np.random.default_rng(3).integers(0, 2**32, (5, 16), np.uint32)
    flags = jnp.uint32(Flags.CHUNK_START | Flags.CHUNK_END | Flags.ROOT)
    value = compress_lanes(
        [jnp.full(5, int(word), jnp.uint32) for word in IV],
        [jnp.asarray(words[:, j]) for j in range(16)],
        counter=jnp.zeros(5, jnp.uint32),
        flags=flags,
        rounds="unrolled",
    )
    hashed = np.stack([np.asarray(word) for word in value], axis=1)
    for row, digest in zip(words, hashed, strict=True):
        assert digest.astype("<u4").tobytes() == blake3(row.astype("<u4").tobytes()).digest()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_sharded_tree_has_the_digest_that_the_host_gives(platform: str) -> None:
    interpreted = {"gpu": gpu_kernels, "tpu": tpu_kernels}[platform]("interpreted")
    # Levels of a tree are padded to `lanes`: an accelerator's would keep an interpreter busy.
    kernels = replace(interpreted, lanes=64)
    values = np.random.default_rng(5).standard_normal((256, 128), np.float32)
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    tree = {"w": jax.device_put(values, NamedSharding(mesh, P("x"))), "b": jnp.arange(70)}
    tree["b"] = jax.device_put(tree["b"], NamedSharding(mesh, P()))
    digest = DeviceDigest(kernels=kernels).start(tree, step=9).result()
    assert digest == tree_digest(tree, step=9)
