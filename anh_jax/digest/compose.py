"""From the roots of every tensor's tiles to the digest of the whole tree.

Whoever hashed the tiles (this host, its devices, another host) leaves the same few bytes a tensor;
what stands above them is put together here, once.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from anh_jax.digest.layout import Layout
from attest.digest_tree import DigestLevel, Path, set_root, state_bytes


class TensorDigest(msgspec.Struct, frozen=True):
    """Name a tensor by its path and give its digest and header bytes."""

    path: Path
    root: bytes
    header: bytes


@dataclass(frozen=True, slots=True)
class TreeDigest:
    """Hold the digest of a pytree at a step.

    `root` commits to all of it; `set_root` to the tensors without step and structure; `tensors`
    are sorted by path bytes. `notes` says which tensors were copied together to be hashed: it
    depends on the sharding, so it takes no part in equality.
    """

    root: bytes
    set_root: bytes
    structure: bytes
    tensors: tuple[TensorDigest, ...]
    step: int
    alg: str
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class OneHashes:
    """Hash one material at a time, at the levels that come often; for one thread."""

    tile: Callable[[bytes], bytes]
    node: Callable[[bytes], bytes]
    tensor: Callable[[bytes], bytes]
    set: Callable[[bytes], bytes]
    structure: Callable[[bytes], bytes]
    state: Callable[[bytes], bytes]


def _one_blake3(level: DigestLevel) -> Callable[[bytes], bytes]:
    hasher = blake3(derive_key_context=level.context)

    def hash_one(material: bytes) -> bytes:
        hasher.update(material)
        digest = hasher.digest()
        hasher.reset()
        return digest

    return hash_one


def _one_sha256(level: DigestLevel) -> Callable[[bytes], bytes]:
    tagged = hashlib.sha256(level.tag)

    def hash_one(material: bytes) -> bytes:
        hasher = tagged.copy()
        hasher.update(material)
        return hasher.digest()

    return hash_one


def one_hashes(alg: str) -> OneHashes:
    """Return the hashes of an algorithm; a hasher serves one call at a time, on one thread."""
    one = {"blake3": _one_blake3, "sha256": _one_sha256}[alg]
    levels = (
        DigestLevel.TILE,
        DigestLevel.NODE,
        DigestLevel.TENSOR,
        DigestLevel.SET,
        DigestLevel.STRUCTURE,
        DigestLevel.STATE,
    )
    return OneHashes(*(one(level) for level in levels))


def compose(
    layout: Layout,
    tops: Mapping[bytes, bytes],
    *,
    step: int,
    alg: str,
    notes: Sequence[str] = (),
) -> TreeDigest:
    """Digest a tree from the 32-byte root of each tensor's tiles, named by its path bytes."""
    hashes = one_hashes(alg)
    tensors = tuple(
        TensorDigest(
            slot.header.path,
            hashes.tensor(slot.prefix + tops[slot.path_bytes]),
            slot.header_bytes,
        )
        for slot in layout.slots
    )
    all_tensors = set_root(lambda _, pair: hashes.set(pair), [tensor.root for tensor in tensors])
    structure = hashes.structure(layout.structure)
    root = hashes.state(state_bytes(step, len(tensors), structure, all_tensors))
    return TreeDigest(root, all_tensors, structure, tensors, step, alg, tuple(notes))
