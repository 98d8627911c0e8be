"""The hash of every level, in the forms that a digest asks for: one at a time, or many at once."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from blake3 import blake3

from attest.digest_tree import DigestLevel, LevelHash, refuse_algorithm

Buffer: TypeAlias = bytes | memoryview
HashOne: TypeAlias = Callable[[bytes], bytes]


class Stream(Protocol):
    """A hash that is fed in parts."""

    def update(self, data: Buffer, /) -> object:
        """Take in the next bytes."""
        ...

    def digest(self) -> bytes:
        """Return the 32-byte hash of everything taken in."""
        ...


@dataclass(frozen=True, slots=True)
class OneHashes:
    """Hash one material at a time, at the levels that come often; for one thread."""

    tile: HashOne
    node: HashOne
    tensor: HashOne
    set: HashOne
    structure: HashOne
    state: HashOne


@dataclass(frozen=True, slots=True)
class BulkHashes:
    """Hash many tiles or many pairs of nodes, from any number of threads.

    `tiles` hashes each buffer before it asks for the next; `pairs` joins neighbours 2i and 2i + 1
    of an even number of digests; `stream` starts the hash of a tile that comes in parts.
    """

    tiles: Callable[[Iterable[Buffer]], list[bytes]]
    pairs: Callable[[Sequence[bytes]], list[bytes]]
    stream: Callable[[], Stream]


def one_hashes(alg: str) -> OneHashes:
    """Return the hashes of an algorithm; a hasher serves one call at a time, on one thread."""
    if alg not in _ONE:
        refuse_algorithm(alg)
    one = _ONE[alg]
    levels = (
        DigestLevel.TILE,
        DigestLevel.NODE,
        DigestLevel.TENSOR,
        DigestLevel.SET,
        DigestLevel.STRUCTURE,
        DigestLevel.STATE,
    )
    return OneHashes(*(one(level) for level in levels))


def bulk_hashes(alg: str) -> BulkHashes:
    """Return the bulk hashes of an algorithm; InputError if `alg` is unknown."""
    if alg not in _BULK:
        refuse_algorithm(alg)
    return _BULK[alg]


def level_hash(alg: str) -> LevelHash:
    """Return the hash of one material at a level, at the speed of the `blake3` package."""
    if alg not in _ONE:
        refuse_algorithm(alg)
    one = _ONE[alg]
    return lambda level, material: one(level)(material)


def _one_blake3(level: DigestLevel) -> HashOne:
    # One hasher for all calls: deriving the key from the context costs as much as a node.
    hasher = blake3(derive_key_context=level.context)
    update, digest, reset = hasher.update, hasher.digest, hasher.reset

    def hash_one(material: bytes) -> bytes:
        update(material)
        result = digest()
        reset()
        return result

    return hash_one


def _one_sha256(level: DigestLevel) -> HashOne:
    copy = hashlib.sha256(level.tag).copy

    def hash_one(material: bytes) -> bytes:
        hasher = copy()
        hasher.update(material)
        return hasher.digest()

    return hash_one


def _blake3_tiles(tiles: Iterable[Buffer]) -> list[bytes]:
    hasher = blake3(derive_key_context=DigestLevel.TILE.context)
    update, digest, reset = hasher.update, hasher.digest, hasher.reset
    digests: list[bytes] = []
    for tile in tiles:
        update(tile)
        digests.append(digest())
        reset()
    return digests


def _blake3_pairs(nodes: Sequence[bytes]) -> list[bytes]:
    hasher = blake3(derive_key_context=DigestLevel.NODE.context)
    update, digest, reset = hasher.update, hasher.digest, hasher.reset
    digests: list[bytes] = []
    each = iter(nodes)
    for left, right in zip(each, each, strict=True):
        update(left + right)
        digests.append(digest())
        reset()
    return digests


def _blake3_stream() -> Stream:
    return blake3(derive_key_context=DigestLevel.TILE.context)


def _sha256_tiles(tiles: Iterable[Buffer]) -> list[bytes]:
    copy = hashlib.sha256(DigestLevel.TILE.tag).copy
    digests: list[bytes] = []
    for tile in tiles:
        hasher = copy()
        hasher.update(tile)
        digests.append(hasher.digest())
    return digests


def _sha256_pairs(nodes: Sequence[bytes]) -> list[bytes]:
    each, tag = iter(nodes), DigestLevel.NODE.tag
    pairs = zip(each, each, strict=True)
    return [hashlib.sha256(tag + left + right).digest() for left, right in pairs]


def _sha256_stream() -> Stream:
    return hashlib.sha256(DigestLevel.TILE.tag)


_ONE = {"blake3": _one_blake3, "sha256": _one_sha256}
_BULK = {
    "blake3": BulkHashes(_blake3_tiles, _blake3_pairs, _blake3_stream),
    "sha256": BulkHashes(_sha256_tiles, _sha256_pairs, _sha256_stream),
}
