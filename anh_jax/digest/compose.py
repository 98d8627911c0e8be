"""From the roots of every tensor's tiles to the digest of the whole tree.

Whoever hashed the tiles (this host, its devices, another host) leaves the same few bytes a tensor;
what stands above them is put together here, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from anh_jax.digest.hashes import HashOne, one_hashes
from anh_jax.digest.layout import Layout
from attest.digest_tree import Path, state_bytes


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
    all_tensors = _set_root(hashes.set, [tensor.root for tensor in tensors])
    structure = hashes.structure(layout.structure)
    root = hashes.state(state_bytes(step, len(tensors), structure, all_tensors))
    return TreeDigest(root, all_tensors, structure, tensors, step, alg, tuple(notes))


def _set_root(hash_set: HashOne, tensors: Sequence[bytes]) -> bytes:
    """Join neighbours level by level, an odd last one carried up: the shape of RFC 6962."""
    level = list(tensors)
    while len(level) > 1:
        each = iter(level)
        joined = [hash_set(left + right) for left, right in zip(each, each, strict=False)]
        level = joined + level[2 * len(joined) :]
    return level[0]
