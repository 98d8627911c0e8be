import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.digest.tile_words import host_words, tile_words
from attest.digest_tree import ELEMENT_BYTES, LARGEST_BYTE, tile_dims, tile_grid

SHAPES = [(), (3,), (7, 11, 13), (1 << 15,), (2048, 96)]


def tiles_of(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    return tile_dims(shape, tile_grid(shape, ELEMENT_BYTES[name]))


def random_array(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Fill with random bytes: NaNs with payloads, denormals and negative zeros are among them."""
    size = ELEMENT_BYTES[name]
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, size), np.uint8)
    raw &= LARGEST_BYTE.get(name, 255)
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    return np.ascontiguousarray(raw).reshape(-1).view(dtype).reshape(shape)


def slow_tiles(array: np.ndarray, tile: tuple[int, ...]) -> list[bytes]:
    """Cut one tile after the other; its bytes end in zeros to a multiple of four."""
    grid = [dim // extent for dim, extent in zip(array.shape, tile, strict=True)]
    found = []
    for index in np.ndindex(*grid):
        block = array[tuple(slice(i * e, (i + 1) * e) for i, e in zip(index, tile, strict=True))]
        data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).tobytes()
        found.append(data.ljust(-(-len(data) // 4) * 4, b"\0"))
    return found


@pytest.fixture(scope="module")
def cut() -> Any:
    programs: dict[tuple[int, ...], Any] = {}

    def run(shape: tuple[int, ...], values: dict[str, Any]) -> dict[str, jax.Array]:
        if shape not in programs:
            programs[shape] = jax.jit(
                lambda values: {
                    name: tile_words(value, name, tiles_of(shape, name))
                    for name, value in values.items()
                }
            )
        return programs[shape](values)

    return run


@settings(max_examples=10)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**32 - 1))
def test_every_dtype_is_cut_into_its_bytes(cut: Any, shape: tuple[int, ...], seed: int):
    arrays = {name: random_array(name, shape, seed) for name in ELEMENT_BYTES}
    words = cut(shape, {name: host_words(array) for name, array in arrays.items()})
    for name, array in arrays.items():
        rows = np.asarray(words[name])
        assert rows.dtype == np.uint32
        found = [row.tobytes() for row in rows]
        assert found == slow_tiles(array, tiles_of(shape, name)), name


@pytest.mark.parametrize("name", ["complex64", "complex128", "float64", "int64", "uint64"])
def test_wide_elements_on_a_device_are_cut_as_those_of_the_host(name: str):
    array = random_array(name, (300, 64), 5)
    tile = tiles_of(array.shape, name)
    with jax.enable_x64(True):
        value = jnp.asarray(array)
        assert value.dtype == array.dtype
        words = np.asarray(jax.jit(lambda value: tile_words(value, name, tile))(value))
    assert [row.tobytes() for row in words] == slow_tiles(array, tile)


def test_elements_of_the_other_byte_order_become_little_endian_words():
    array = np.arange(6, dtype=">f8").reshape(2, 3)
    words = host_words(array)
    assert words.shape == (2, 3, 2)
    assert words.tobytes() == array.astype("<f8").tobytes()
    assert host_words(np.arange(3, dtype=">i2")).tobytes() == np.arange(3, dtype="<i2").tobytes()


def test_empty_array_is_one_tile_of_no_words():
    assert tile_words(jnp.zeros((0, 3)), "float32", (0, 3)).shape == (1, 0)
    assert math.prod(tile_grid((0, 3), 4)) == 1


@pytest.mark.parametrize("dtype", [">f4", "float32", "float64", "bool", "bfloat16"])
def test_what_a_device_takes_is_no_memory_of_the_caller(dtype: str):
    array = random_array(dtype.replace(">f4", "float32"), (8, 4), 0)
    array = array.astype(dtype) if dtype.startswith(">") else array
    assert not np.shares_memory(host_words(array), array)


def test_true_is_one_whatever_byte_memory_holds_for_it():
    # As memory that another library wrote may: JAX takes it as it is.
    array = np.array([0, 1, 2, 128, 255], np.uint8).view(np.bool_)
    assert host_words(array).view(np.uint8).tolist() == [0, 1, 1, 1, 1]
    shared = jax.device_put(array)
    words = jax.jit(lambda value: tile_words(value, "bool", (5,)))(shared)
    assert np.asarray(words).view(np.uint8).reshape(-1)[:5].tolist() == [0, 1, 1, 1, 1]
