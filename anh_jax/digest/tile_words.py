"""Cut the elements on a device into the words of their tiles, under jit: bits, never values."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from attest.digest_tree import ELEMENT_BYTES, LARGEST_BYTE

WORD_BYTES = 4


def tile_words(block: jax.Array, dtype: str, tile: Sequence[int]) -> jax.Array:
    """Return the tiles of a block as little endian words uint32[tiles, words], in C order.

    `tile` is the shape of a tile, which divides the block's. A tile whose bytes are no multiple of
    four ends in zeros. Elements given as uint32 where `dtype` is wider have one more axis, of
    their words.
    """
    if not block.size:
        return jnp.zeros((1, 0), jnp.uint32)
    bits = element_words(block, dtype)
    shape = [*tile, *bits.shape[len(tile) :]]
    width = bits.dtype.itemsize
    share = WORD_BYTES // width
    if share > 1 and shape and shape[-1] % share == 0:
        # Where rows are whole words, words are moved instead of bytes.
        bits = _packed(bits, share)
        shape[-1] //= share
        share = 1
    grid = [dim // extent for dim, extent in zip(bits.shape, shape, strict=True)]
    pairs = [extent for axis in zip(grid, shape, strict=True) for extent in axis]
    order = (*range(0, 2 * len(grid), 2), *range(1, 2 * len(grid), 2))
    tiles = bits.reshape(pairs).transpose(order).reshape(math.prod(grid), math.prod(shape))
    if share == 1:
        return tiles
    return _packed(jnp.pad(tiles, ((0, 0), (0, -tiles.shape[1] % share))), share)


def element_words(block: jax.Array, dtype: str) -> jax.Array:
    """Return elements as unsigned integers of their width, at most 32 bits.

    Wider elements get one more axis, of their words from the lowest; of a complex number the real
    part's words come first. Types below eight bits, and bool, become bytes. What is given as such
    words is returned.
    """
    if block.dtype == jnp.uint32:
        return block
    if dtype == "bool":
        # Memory shared with another library may hold any byte for true, and XLA converts none.
        return jnp.minimum(block.astype(jnp.uint8), np.uint8(LARGEST_BYTE[dtype]))
    if dtype in LARGEST_BYTE:
        return block.astype(jnp.int8).astype(jnp.uint8) & np.uint8(LARGEST_BYTE[dtype])
    if jnp.issubdtype(block.dtype, jnp.complexfloating):
        parts = jnp.stack([lax.real(block), lax.imag(block)], axis=-1)
        words = lax.bitcast_convert_type(parts, jnp.uint32)
        return words.reshape(*block.shape, ELEMENT_BYTES[dtype] // WORD_BYTES)
    width = min(ELEMENT_BYTES[dtype], WORD_BYTES)
    return lax.bitcast_convert_type(block, np.dtype(f"u{width}"))


def as_elements(words: jax.Array, dtype: str) -> jax.Array:
    """Return elements of at most four bytes from their unsigned integers; others as they are."""
    if words.dtype.name == dtype:
        return words
    return lax.bitcast_convert_type(words, jnp.dtype(dtype))


def host_words(array: NDArray) -> NDArray:
    """Return an array as a device takes it: elements of over four bytes as uint32[..., words].

    Without JAX's 64-bit mode a device would get such elements rounded to 32 bits. The result is a
    copy: a device may read it after the caller has changed the array.
    """
    if array.dtype == np.bool_:
        return np.not_equal(array.view(np.uint8), 0)  # any byte but 0 is true
    copy = np.array(array, order="C")
    if not copy.dtype.isnative:
        copy = copy.astype(copy.dtype.newbyteorder("="))
    if copy.dtype.itemsize <= WORD_BYTES:
        return copy
    words = copy.reshape(-1).view(np.uint32)
    return words.reshape(*array.shape, array.dtype.itemsize // WORD_BYTES)


def _packed(values: jax.Array, share: int) -> jax.Array:
    """Make words of `share` neighbours along the last axis, the first one lowest."""
    parts = values.reshape(*values.shape[:-1], values.shape[-1] // share, share)
    return lax.bitcast_convert_type(parts, jnp.uint32)
