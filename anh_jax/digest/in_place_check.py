"""Check on a device that kernels hash tensors where they lie as they hash copies of their tiles."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.blake3_xla import derive_key_mode
from anh_jax.digest.block_cut import BlockCut, block_cut
from anh_jax.digest.kernels import CHUNK_BYTES, CHUNK_WORDS, Kernels
from anh_jax.errors import AnhError

_CONTEXT = "anh v1 self-check"
# Three tensors of 4 x 2 tiles of 17 runs of 768 bytes, whose first row of tiles is left out:
# chunks begin within runs, pass their ends, leave a rest, and do not fill the last program.
_TENSORS, _ROWS, _ROW_BYTES = 3, 68, 1536
_TILES_DOWN, _TILES_ACROSS, _LEFT_OUT = 4, 2, 1
# One of each width; types of one width differ in nothing but their name.
_DTYPES = ("float32", "bfloat16", "int8")


def find_fault_in_place(kernels: Kernels, device: Any) -> str | None:
    """Return in one line what is wrong with `kernels.tensor_chunks` on a device, or None.

    It is compared with `kernels.chunks`, which are to be believed already.
    """
    if kernels.tensor_chunks is None:
        return None
    for dtype in _DTYPES:
        try:
            wrong = _wrong(kernels, dtype, device)
        # As for all kernels: what their compiler may raise is not one type.
        except Exception as error:
            return failure(error)
        if wrong.any():
            return f"hashed {wrong.sum()} of {wrong.size} {dtype} chunks wrongly"
    return None


def failure(error: Exception) -> str:
    """Write an error of a compiler in one line."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _wrong(kernels: Kernels, dtype: str, device: Any) -> NDArray[np.bool_]:
    """Hash tensors of one dtype both ways; return which chunks differ."""
    mode = derive_key_mode(_CONTEXT)
    words = np.arange(_TENSORS * _ROWS * _ROW_BYTES // 4, dtype=np.uint32) * np.uint32(2654435761)
    tensors = words.view(jnp.dtype(dtype)).reshape(_TENSORS, _ROWS, -1)
    tile = (_ROWS // _TILES_DOWN, tensors.shape[2] // _TILES_ACROSS)
    grid = (_TILES_DOWN - _LEFT_OUT, _TILES_ACROSS)
    cut = block_cut(tensors.shape[1:], tile, grid, tensors.itemsize)
    if cut is None:
        raise AnhError(f"digest kernels: tiles {tile} of {dtype} are not whole blocks of 64 bytes")
    copied = _copied(tensors[:, _LEFT_OUT * tile[0] :], tile)
    hashed = jax.jit(lambda *arrays: _both_ways(kernels, cut, mode.flags, *arrays))
    there, alone = hashed(*jax.device_put((list(tensors), copied, mode.key), device))
    return (np.asarray(there) != np.asarray(alone)).any(axis=1)


def _both_ways(
    kernels: Kernels,
    cut: BlockCut,
    flags: int,
    tensors: list[jax.Array],
    copied: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    if kernels.tensor_chunks is None:
        raise AnhError("digest kernels: these read no tensors where they lie")
    first = jnp.int32(_LEFT_OUT * cut.tile[0] * cut.strides[0])
    counters = jnp.tile(jnp.arange(cut.chunks, dtype=jnp.uint32), len(tensors) * cut.tiles)
    return (
        kernels.tensor_chunks(tensors, cut, first, key, flags),
        kernels.chunks(copied, counters, key, flags),
    )


def _copied(tensors: NDArray, tile: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the full chunks of the tiles of tensors [tensors, rows, columns]: uint32[n, 256]."""
    count, rows, columns = tensors.shape
    split = tensors.reshape(count, rows // tile[0], tile[0], columns // tile[1], tile[1])
    tiles = split.swapaxes(2, 3).reshape(-1, math.prod(tile))
    raw = np.ascontiguousarray(tiles).view(np.uint8)
    full = raw[:, : raw.shape[1] // CHUNK_BYTES * CHUNK_BYTES]
    return np.ascontiguousarray(full).view(np.uint32).reshape(-1, CHUNK_WORDS)
