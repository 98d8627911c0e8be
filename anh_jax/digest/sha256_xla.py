"""Hash tagged messages with SHA-256 on any backend XLA compiles for.

Source: FIPS 180-4, sections 4.1.2, 5.1.1, 5.2.1 and 6.2.2. A message is one tag byte and then its
material, so every word of a block is made of two words of the material.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from anh_jax.digest.kernels import in_slabs, rotate_right
from anh_jax.digest.leaves import Messages, hash_leaves, lay_leaves
from attest.digest_tree import DigestLevel

_BLOCK_BYTES = 64
# The tag, the byte 0x80 and eight bytes of length.
_ADDED_BYTES = 10
_ROUNDS = 64


def _roots(count: int, power: int) -> np.ndarray:
    """Return 32 bits of the fractional part of the power-th root of the first primes."""
    primes: list[int] = []
    number = 2
    while len(primes) < count:
        if all(number % prime for prime in primes):
            primes.append(number)
        number += 1
    return np.array([_root(p << (32 * power), power) & 0xFFFFFFFF for p in primes], np.uint32)


def _root(number: int, power: int) -> int:
    low, high = 0, 1 << 48
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**power <= number else (low, middle)
    return low


_START = _roots(8, 2)
_CONSTANTS = _roots(_ROUNDS, 3)


def swap_bytes(words: jax.Array) -> jax.Array:
    """Reverse the bytes of each uint32."""
    pairs = ((words & np.uint32(0x00FF00FF)) << 8) | ((words >> 8) & np.uint32(0x00FF00FF))
    return rotate_right(pairs, 16)


def compress(state: jax.Array, block: jax.Array) -> jax.Array:
    """Compress one block on each of n lanes: uint32[8, n], uint32[16, n] -> uint32[8, n].

    The rounds stay a loop, as those of BLAKE3 do; the schedule is a window of 16 words.
    """
    constants = jnp.asarray(_CONSTANTS)

    def one_round(number: jax.Array, carry: tuple[jax.Array, jax.Array]):
        window, rows = carry
        a, b, c, d, e, f, g, h = (rows[i] for i in range(8))
        large = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)
        first = h + large + ((e & f) ^ (~e & g)) + constants[number] + window[0]
        second = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)
        second = second + ((a & b) ^ (a & c) ^ (b & c))
        near, far = window[1], window[14]
        new = window[0] + window[9]
        new = new + (rotate_right(near, 7) ^ rotate_right(near, 18) ^ (near >> 3))
        new = new + (rotate_right(far, 17) ^ rotate_right(far, 19) ^ (far >> 10))
        rows = jnp.stack([first + second, a, b, c, d + first, e, f, g])
        return jnp.concatenate([window[1:], new[None]]), rows

    _, rows = lax.fori_loop(0, _ROUNDS, one_round, (block, state))
    return state + rows


def hash_lanes(words: jax.Array, lengths: jax.Array, tag: int) -> jax.Array:
    """Hash a tag byte and then `lengths` bytes of uint32[n, 16 blocks], to uint32[n, 8].

    The words are little endian and zero after the last byte; there is room for the padding.
    """
    lanes, width = words.shape
    material = swap_bytes(words).T
    before = jnp.concatenate([jnp.full((1, lanes), tag, jnp.uint32), material[:-1]])
    stream = (before << 24) | (material >> 8)
    sizes = lengths + 1  # with the tag
    at = jnp.arange(width, dtype=jnp.uint32)[:, None]
    end = np.uint32(0x80) << ((3 - (sizes & 3)) << 3)
    stream = stream | jnp.where(at == sizes >> 2, end, np.uint32(0))
    blocks = (sizes + np.uint32(8)) // _BLOCK_BYTES + 1
    stream = stream | jnp.where(at == blocks * 16 - 1, sizes << 3, np.uint32(0))
    stream = stream | jnp.where(at == blocks * 16 - 2, sizes >> 29, np.uint32(0))
    blocked = stream.reshape(width // 16, 16, lanes)

    def one_block(number: jax.Array, state: jax.Array) -> jax.Array:
        block = lax.dynamic_index_in_dim(blocked, number, 0, keepdims=False)
        active = number.astype(jnp.uint32) < blocks
        return jnp.where(active, compress(state, block), state)

    first = jnp.broadcast_to(jnp.asarray(_START)[:, None], (8, lanes))
    return swap_bytes(lax.fori_loop(0, width // 16, one_block, first)).T


@dataclass(frozen=True, slots=True)
class Sha256:
    """Hash tiles under one tag byte and nodes, 64 bytes each, under another."""

    tile_tag: int
    node_tag: int
    lanes: int

    @property
    def chunks(self) -> None:
        """Return None: a message is hashed from end to end."""
        return

    def blocks(self, length: int) -> int:
        """Return the blocks of a message of `length` bytes and its tag."""
        return -(-(length + _ADDED_BYTES) // _BLOCK_BYTES)

    def last(
        self, words: jax.Array, lengths: jax.Array, counters: jax.Array, whole: jax.Array
    ) -> jax.Array:
        """Hash messages uint32[n, 16 blocks] of `lengths` bytes to uint32[n, 8]."""
        del counters, whole  # what only a hash of chunks needs
        return in_slabs(
            lambda words, lengths: hash_lanes(words, lengths, self.tile_tag),
            self.lanes,
            words,
            lengths,
        )

    def merge(self, words: jax.Array, kind: jax.Array) -> jax.Array:
        """Merge pairs uint32[n, 16] to nodes uint32[n, 8]."""
        del kind  # nodes are the only merges there are
        lengths = jnp.full((words.shape[0],), _BLOCK_BYTES, jnp.uint32)
        padded = jnp.pad(words, ((0, 0), (0, 16)))
        return in_slabs(
            lambda words, lengths: hash_lanes(words, lengths, self.node_tag),
            self.lanes,
            padded,
            lengths,
        )


def sha256_tiles(lanes: int = 1024) -> Sha256:
    """Return the hash of a state digest's tiles and nodes."""
    return Sha256(DigestLevel.TILE.tag[0], DigestLevel.NODE.tag[0], lanes)


def hash_messages(words: jax.Array, length: int, tag: int, lanes: int = 1024) -> jax.Array:
    """Hash n messages of a tag byte and `length` bytes, uint32[n, words], to uint32[n, 8]."""
    sha256 = Sha256(tag, tag, lanes)
    batch = lay_leaves(sha256, [Messages(words.shape[0], length)], 0)
    return hash_leaves(sha256, batch, [words], jax.tree.map(jnp.asarray, batch.operands))
