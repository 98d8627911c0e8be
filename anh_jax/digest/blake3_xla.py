"""Hash messages with BLAKE3 on any backend XLA compiles for.

Source: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), sections 2.1-2.4.
Full chunks go through one kernel, whatever message they belong to; the last chunk of a message,
or its only one, through a form that takes each lane's own length.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.digest.kernels import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    Flags,
    Kernels,
    hash_chunks,
    in_slabs,
    xla_kernels,
)
from anh_jax.digest.leaves import ChunkHash, Messages, Words, hash_leaves, lay_leaves
from anh_jax.digest.merge_list import MergeLevels, merge_chunks, run_merges
from attest.blake3_pure import blake3_context_key
from attest.digest_tree import DigestLevel

_NODE = Flags.CHUNK_START | Flags.CHUNK_END | Flags.ROOT


@dataclass(frozen=True, slots=True)
class Mode:
    """Hold a mode of BLAKE3: the first chaining value uint32[8], and the flags of every block."""

    key: Words
    flags: int


@cache
def derive_key_mode(context: str) -> Mode:
    """Return the mode that derives 32 bytes from material in a context (section 2.3)."""
    key = np.frombuffer(blake3_context_key(context), "<u4").astype(np.uint32)
    return Mode(key, int(Flags.DERIVE_KEY_MATERIAL))


@dataclass(frozen=True, slots=True)
class Blake3:
    """Hash tiles in one mode and nodes, 64 bytes each, in another."""

    tiles: Mode
    nodes: Mode
    kernels: Kernels

    @property
    def chunks(self) -> ChunkHash:
        """Return what hashes full chunks: the kernels."""
        key, flags, kernels = self.tiles.key, self.tiles.flags, self.kernels
        read = kernels.tensor_chunks
        return ChunkHash(
            size=CHUNK_BYTES,
            rows=lambda words, counters: kernels.chunks(words, counters, jnp.asarray(key), flags),
            in_place=None
            if read is None
            else lambda tensors, cut, first: read(tensors, cut, first, jnp.asarray(key), flags),
        )

    @property
    def lanes(self) -> int:
        """Return how many merges keep the backend busy."""
        return self.kernels.lanes

    def blocks(self, length: int) -> int:
        """Return the blocks of a chunk of `length` bytes; an empty one has one block."""
        return max(1, -(-length // BLOCK_BYTES))

    def last(
        self, words: jax.Array, lengths: jax.Array, counters: jax.Array, whole: jax.Array
    ) -> jax.Array:
        """Hash last chunks uint32[n, 16 blocks] to uint32[n, 8]; a whole message's to its root."""
        key, flags = jnp.asarray(self.tiles.key), np.uint32(self.tiles.flags)

        def one_slab(
            words: jax.Array, lengths: jax.Array, counters: jax.Array, whole: jax.Array
        ) -> jax.Array:
            root = whole * np.uint32(Flags.ROOT)
            return hash_chunks(words, lengths, counters, key, flags, root)

        return in_slabs(one_slab, self.kernels.lanes, words, lengths, counters, whole)

    def merge(self, words: jax.Array, kind: jax.Array) -> jax.Array:
        """Merge pairs uint32[n, 16] to uint32[n, 8], as a `merge_list.Kind` says."""
        parent = self.tiles.flags | Flags.PARENT
        flags = np.array((parent, parent | Flags.ROOT, self.nodes.flags | _NODE), np.uint32)
        keys = np.stack([self.tiles.key, self.tiles.key, self.nodes.key])
        return self.kernels.parents(words, jnp.asarray(keys)[kind], jnp.asarray(flags)[kind])


def blake3_tiles(kernels: Kernels) -> Blake3:
    """Return the hash of a state digest's tiles and nodes."""
    tiles, nodes = (
        derive_key_mode(level.context) for level in (DigestLevel.TILE, DigestLevel.NODE)
    )
    return Blake3(tiles, nodes, kernels)


def hash_messages(
    words: jax.Array, length: int, mode: Mode, kernels: Kernels | None = None
) -> jax.Array:
    """Hash n messages of `length` bytes each, uint32[n, words], to uint32[n, 8].

    The words are little endian, and zero after the last byte. Traces under jit; without `kernels`
    those of XLA are used.
    """
    blake3 = Blake3(mode, mode, kernels or xla_kernels())
    batch = lay_leaves(blake3, [Messages(words.shape[0], length)], 0)
    levels = MergeLevels(batch.rows)
    (roots,) = merge_chunks(levels, batch.leaves)
    finished = levels.finish(blake3.lanes)
    pool = hash_leaves(blake3, batch, [words], jax.tree.map(jnp.asarray, batch.operands))
    merges = finished.merges
    pool = run_merges(pool, jnp.asarray(merges.pairs), jnp.asarray(merges.kinds), blake3.merge)
    return pool[finished.places[roots]]
