"""Lay out the bytes of a state digest: tile grid, paths, headers and the trees above the tiles.

Every level is `hash(level, material)`, 32 bytes. With `blake3` that is BLAKE3 `derive_key` in the
level's context; with `sha256` it is SHA-256 over the level's one-byte tag and the material (the
tags stay clear of RFC 6962's 0 and 1). Integers are little endian.

    path      = u16 n || n * (u8 key kind || u32 length || bytes)
                key kind 0: a dict's text key, bytes = UTF-8; 1: an index, bytes = u64
    header    = u8 1 (version) || u8 kind (0 array, 1 PRNG key) || path
                || u8 length || ASCII dtype || [kind 1: u8 length || ASCII PRNG implementation]
                || u8 rank || rank * u64 dims || rank * u64 grid
    tile      = hash(TILE, bytes of one block of the logical array, C order)
    node      = hash(NODE, left || right)
    tensor    = hash(TENSOR, u32 length of header || header || root of the tiles)
    set       = hash(SET, left || right): the shape of RFC 6962 over tensors sorted by path bytes;
                the set of one tensor is that tensor's digest
    structure = hash(STRUCTURE, u32 n || n * (path || u8 type)): all pytree nodes sorted by path
                bytes; type 0 dict, 1 sequence (list or tuple), 2 None, 3 tensor
    state     = hash(STATE, u64 step || u32 tensors || structure || set)
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from typing import NoReturn, TypeAlias

from attest.blake3_pure import blake3_derive_key
from attest.errors import InputError

# A tile is halved while its halves hold at least this many bytes. Part of the format: another
# value gives other digests. Measured: docs/digest_bytes.md, "Why these sizes".
TILE_BYTES = 16384
# Rows of a tile stay at least this long, so that cutting one out of an array is cheap; the second
# value holds where nothing but the last axis can be halved (an odd vocabulary).
LAST_AXIS_BYTES = 512
ONLY_AXIS_BYTES = 128
MAX_DEPTH = 64
MAX_RANK = 64
MAX_STEP = 2**53 - 1

# Bytes of one element. Types below eight bits and bool take one byte each, value in the low bits.
ELEMENT_BYTES = {
    "bool": 1,
    "int4": 1,
    "uint4": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float8_e3m4": 1,
    "float8_e4m3": 1,
    "float8_e4m3b11fnuz": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
# The largest byte an element of a narrow type may hold: one value, one byte.
LARGEST_BYTE = {"bool": 1, "int4": 15, "uint4": 15}

Path: TypeAlias = tuple[str | int, ...]


class DigestLevel(Enum):
    """Name a level of the tree by its BLAKE3 context and its SHA-256 tag."""

    TILE = ("anh v1 tile", 0x10)
    NODE = ("anh v1 node", 0x11)
    TENSOR = ("anh v1 tensor", 0x12)
    SET = ("anh v1 set", 0x13)
    STATE = ("anh v1 state", 0x14)
    STRUCTURE = ("anh v1 structure", 0x15)

    def __init__(self, context: str, tag: int) -> None:
        self.context = context
        self.tag = bytes([tag])


class NodeType(IntEnum):
    """Say what stands at a path of the pytree."""

    DICT = 0
    SEQUENCE = 1
    NONE = 2
    TENSOR = 3


LevelHash: TypeAlias = Callable[[DigestLevel, bytes], bytes]


def _blake3(level: DigestLevel, material: bytes) -> bytes:
    return blake3_derive_key(level.context, material)


def _sha256(level: DigestLevel, material: bytes) -> bytes:
    return hashlib.sha256(level.tag + material).digest()


_LEVEL_HASHES: dict[str, LevelHash] = {"blake3": _blake3, "sha256": _sha256}
ALGORITHMS = tuple(_LEVEL_HASHES)


def level_hash(alg: str) -> LevelHash:
    """Return the hash of a digest algorithm, computed by the standard library.

    Raises:
        InputError: if `alg` is not one of ALGORITHMS.
    """
    if alg not in _LEVEL_HASHES:
        refuse_algorithm(alg)
    return _LEVEL_HASHES[alg]


def refuse_algorithm(alg: str) -> NoReturn:
    """Raise the InputError that names the algorithms there are."""
    raise InputError(f"digest algorithm {alg!r} is unknown; use one of {', '.join(ALGORITHMS)}")


def tile_grid(dims: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the number of tiles along each axis, powers of two, from shape and width alone.

    While the halves of a tile hold at least TILE_BYTES, the axis halved least so far is halved
    (ties: the leading one). Only even extents are. The last axis of two or more keeps
    LAST_AXIS_BYTES or, where no other can be halved, ONLY_AXIS_BYTES.
    """
    extents, halvings = list(dims), [0] * len(dims)
    last = len(extents) - 1

    def can_halve(axis: int, least: int) -> bool:
        extent = extents[axis]
        short = 0 < axis == last and extent // 2 * itemsize < least
        return extent % 2 == 0 and not short

    while math.prod(extents) * itemsize >= 2 * TILE_BYTES:
        axes = [axis for axis in range(len(extents)) if can_halve(axis, LAST_AXIS_BYTES)]
        if not axes and can_halve(last, ONLY_AXIS_BYTES):
            axes = [last]
        if not axes:
            break
        axis = min(axes, key=halvings.__getitem__)
        extents[axis] //= 2
        halvings[axis] += 1
    return tuple(1 << count for count in halvings)


def tile_dims(dims: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one tile."""
    return tuple(dim // count for dim, count in zip(dims, grid, strict=True))


def merge_axes(grid: Sequence[int]) -> tuple[int, ...]:
    """List the axis along which each level of the tile tree pairs even and odd neighbours.

    From the tiles up: the axis with the most remaining blocks (ties: the last one).
    """
    remaining, axes = list(grid), []
    for _ in range(math.prod(remaining).bit_length() - 1):
        axis = max(range(len(remaining)), key=lambda a: (remaining[a], a))
        remaining[axis] //= 2
        axes.append(axis)
    return tuple(axes)


def encode_path(path: Path) -> bytes:
    """Encode a path; tensors and nodes are sorted by these bytes.

    Raises:
        InputError: for a path deeper than MAX_DEPTH, a key outside Unicode, an index past 64 bits.
    """
    if len(path) > MAX_DEPTH:
        raise InputError(f"path {path_text(path[:4])}/...: nested deeper than {MAX_DEPTH}")
    return struct.pack("<H", len(path)) + b"".join(_encode_key(key, path) for key in path)


def _encode_key(key: str | int, path: Path) -> bytes:
    try:
        kind, data = (0, key.encode()) if isinstance(key, str) else (1, key.to_bytes(8, "little"))
    except (UnicodeEncodeError, OverflowError):
        raise InputError(
            f"path {path_text(path)}: key {key!r} is neither Unicode text nor a 64-bit index"
        ) from None
    return struct.pack("<BI", kind, len(data)) + data


def path_text(path: Path) -> str:
    """Write a path for people: its keys joined by a slash."""
    return "/".join(str(key) for key in path) or "(root)"


def structure_bytes(nodes: Iterable[tuple[bytes, NodeType]]) -> bytes:
    """Return the material of the structure level from (encoded path, type) pairs in any order."""
    entries = [path + bytes([kind]) for path, kind in sorted(nodes)]
    return struct.pack("<I", len(entries)) + b"".join(entries)


def tensor_bytes(header: bytes, tile_root: bytes) -> bytes:
    """Return the material of the tensor level."""
    return struct.pack("<I", len(header)) + header + tile_root


def state_bytes(step: int, tensors: int, structure: bytes, set_root: bytes) -> bytes:
    """Return the material of the state level."""
    return struct.pack("<QI", step, tensors) + structure + set_root


def set_root(hash_level: LevelHash, tensors: Sequence[bytes]) -> bytes:
    """Return the digest of a non-empty set of tensor digests sorted by path bytes."""
    if not tensors:
        raise InputError("a digest needs at least one tensor; the tree holds none")
    if len(tensors) == 1:
        return tensors[0]
    left = _left_size(len(tensors))
    return hash_level(
        DigestLevel.SET, set_root(hash_level, tensors[:left]) + set_root(hash_level, tensors[left:])
    )


def set_siblings(hash_level: LevelHash, tensors: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings of one tensor digest, from the tensor up (RFC 6962 section 2.1.1)."""
    if len(tensors) == 1:
        return ()
    left = _left_size(len(tensors))
    if index < left:
        sibling = set_root(hash_level, tensors[left:])
        return (*set_siblings(hash_level, tensors[:left], index), sibling)
    sibling = set_root(hash_level, tensors[:left])
    return (*set_siblings(hash_level, tensors[left:], index - left), sibling)


def set_turns(index: int, count: int) -> tuple[int, ...]:
    """Say, from the tensor up, whether the path is a left (0) or a right (1) child."""
    if count == 1:
        return ()
    left = _left_size(count)
    if index < left:
        return (*set_turns(index, left), 0)
    return (*set_turns(index - left, count - left), 1)


def tile_turns(grid: Sequence[int], index: Sequence[int]) -> tuple[int, ...]:
    """Say, from the tile up, whether the path is a left (0) or a right (1) child."""
    position, turns = list(index), []
    for axis in merge_axes(grid):
        turns.append(position[axis] & 1)
        position[axis] >>= 1
    return tuple(turns)


def climb(
    hash_level: LevelHash,
    level: DigestLevel,
    leaf: bytes,
    turns: Sequence[int],
    siblings: Sequence[bytes],
) -> bytes:
    """Return the root reached from a leaf; one sibling per turn."""
    value = leaf
    for turn, sibling in zip(turns, siblings, strict=True):
        value = hash_level(level, sibling + value if turn else value + sibling)
    return value


def _left_size(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)
