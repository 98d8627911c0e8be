"""Chunks of tensors where they lie: interpreted, they equal those of copies of the same tiles."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from anh_jax.digest.block_cut import BlockCut, block_cut
from anh_jax.digest.kernels import Kernels, xla_kernels
from anh_jax.digest.pallas_gpu import gpu_kernels
from attest.digest_tree import tile_dims, tile_grid

# 2026-11: jax 0.11 and later announce that Mosaic GPU will replace Triton.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The Pallas Triton backend is deprecated:DeprecationWarning"
)

# Shape, dtype, tensors of one launch: a run of 12 blocks; an odd vocabulary (runs of 3 blocks, a
# rest after the chunks, programs that are not full); a chunk over the end of two axes; runs of 8
# blocks, the same in every chunk; all of a tensor one run; elements of two bytes and of one.
CASES = (
    ((256, 384), "float32", 1),
    ((97, 768), "float32", 3),
    ((4, 10, 1440), "float32", 2),
    ((64, 512), "uint32", 5),
    ((1 << 15,), "int32", 1),
    ((256, 1536), "bfloat16", 2),
    ((3, 64, 2, 256), "float16", 1),
    ((128, 1536), "int8", 3),
)


def cut_of(shape: tuple[int, ...], dtype: str) -> tuple[BlockCut, tuple[int, ...]]:
    itemsize = jnp.dtype(dtype).itemsize
    grid = tile_grid(shape, itemsize)
    tile = tile_dims(shape, grid)
    cut = block_cut(shape, tile, grid, itemsize)
    assert cut is not None
    return cut, tile


@functools.cache
def chunks_of_copies() -> Any:
    return jax.jit(xla_kernels().chunks, static_argnums=3)


def copied(array: np.ndarray, tile: tuple[int, ...], cut: BlockCut) -> np.ndarray:
    """Return the full chunks of an array's tiles, uint32[n, 256]."""
    pairs = [n for d, e in zip(array.shape, tile, strict=True) for n in (d // e, e)]
    order = (*range(0, len(pairs), 2), *range(1, len(pairs), 2))
    raw = np.ascontiguousarray(array.reshape(pairs).transpose(order)).view(np.uint8)
    full = raw.reshape(cut.tiles, -1)[:, : cut.chunks * 1024]
    return np.ascontiguousarray(full).view("<u4").reshape(-1, 256)


@pytest.mark.parametrize(("shape", "dtype", "count"), CASES)
def test_chunks_read_in_place_are_those_of_copies(
    shape: tuple[int, ...], dtype: str, count: int
) -> None:
    cut, tile = cut_of(shape, dtype)
    width, random = jnp.dtype(dtype).itemsize, np.random.default_rng(0)
    raw = random.integers(0, 256, (count, math.prod(shape) * width), np.uint8)
    arrays = raw.view(jnp.dtype(dtype)).reshape(count, *shape)
    key = random.integers(0, 2**32, 8, np.uint32)
    hash_tensors = gpu_kernels("interpreted").tensor_chunks
    assert hash_tensors is not None
    found = jax.jit(lambda *arrays: hash_tensors(arrays, cut, jnp.int32(0), jnp.asarray(key), 64))(
        *arrays
    )
    rows = np.concatenate([copied(array, tile, cut) for array in arrays])
    counters = np.tile(np.arange(cut.chunks, dtype=np.uint32), count * cut.tiles)
    assert np.array_equal(found, chunks_of_copies()(rows, counters, key, 64))


def traced(kernels: Kernels, shape: tuple[int, ...], dtype: str, count: int) -> Any:
    cut, _ = cut_of(shape, dtype)
    hash_tensors = kernels.tensor_chunks
    assert hash_tensors is not None
    of = jax.ShapeDtypeStruct
    return jax.jit(lambda first, key, *arrays: hash_tensors(arrays, cut, first, key, 64)).trace(
        of((), jnp.int32), of((8,), jnp.uint32), *[of(shape, dtype)] * count
    )


# Those above, an odd vocabulary at its size, tensors of many layers, more than 4 GiB of one tensor.
LOWERED = (
    *CASES,
    ((50257, 768), "float32", 3),
    ((768, 2304), "bfloat16", 36),
    ((40960, 32768), "float32", 1),
)


@pytest.mark.parametrize(("shape", "dtype", "count"), LOWERED)
def test_one_launch_for_all_tensors_lowers_for_a_gpu(
    shape: tuple[int, ...], dtype: str, count: int
) -> None:
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        lowered = traced(gpu_kernels(), shape, dtype, count).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("@__gpu$xla.gpu.triton(") == 1
    assert "blake3_tensor_chunks" in text
