"""Compute BLAKE3 with the standard library alone.

Source: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), sections 2.1-2.6.
A client opens tiles of 16 to 32 KiB with this; at about 1 MB/s it is not for whole artifacts.
"""

import struct
from dataclasses import dataclass

from attest.errors import InputError

_IV = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_LANES = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
_ROUNDS = 7
_BLOCK_BYTES = 64
_CHUNK_BYTES = 1024
_MASK = 0xFFFFFFFF
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
_KEYED_HASH, _DERIVE_KEY_CONTEXT, _DERIVE_KEY_MATERIAL = 16, 32, 64

_Words = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    """The inputs of a node's last compression, kept open: only its maker knows if it is the root.

    `value` is the chaining value (8 words), `words` the message block (16 words).
    """

    value: _Words
    words: _Words
    counter: int
    length: int
    flags: int


def _steps() -> tuple[tuple[int, ...], ...]:
    """List all quarter-rounds of one compression as (a, b, c, d, first word, second word)."""
    order = tuple(range(16))
    steps: list[tuple[int, ...]] = []
    for _ in range(_ROUNDS):
        steps += [(*lane, order[2 * i], order[2 * i + 1]) for i, lane in enumerate(_LANES)]
        order = tuple(order[i] for i in _PERMUTATION)
    return tuple(steps)


_STEPS = _steps()


def _compress(node: _Node) -> _Words:
    """Return the 16 output words of one compression (paper section 2.2)."""
    value, words, counter = node.value, node.words, node.counter
    v = [*value, *_IV[:4], counter & _MASK, counter >> 32, node.length, node.flags]
    for a, b, c, d, x, y in _STEPS:
        va = (v[a] + v[b] + words[x]) & _MASK
        vd = v[d] ^ va
        vd = (vd >> 16) | (vd << 16) & _MASK
        vc = (v[c] + vd) & _MASK
        vb = v[b] ^ vc
        vb = (vb >> 12) | (vb << 20) & _MASK
        v[a] = va = (va + vb + words[y]) & _MASK
        vd ^= va
        v[d] = vd = (vd >> 8) | (vd << 24) & _MASK
        v[c] = vc = (vc + vd) & _MASK
        vb ^= vc
        v[b] = (vb >> 7) | (vb << 25) & _MASK
    low = tuple(v[i] ^ v[i + 8] for i in range(8))
    return low + tuple(v[i + 8] ^ value[i] for i in range(8))


def _block(value: _Words, block: bytes, counter: int, flags: int) -> _Node:
    """Return the open node of one block of at most 64 bytes, padded with zeros."""
    words = struct.unpack("<16I", block.ljust(_BLOCK_BYTES, b"\x00"))
    return _Node(value, words, counter, len(block), flags)


def _chunk(key: _Words, chunk: bytes, counter: int, flags: int) -> _Node:
    """Return the open last block of one chunk of at most 1024 bytes."""
    value, start = key, _CHUNK_START
    last = max(0, (len(chunk) - 1) // _BLOCK_BYTES) * _BLOCK_BYTES
    for i in range(0, last, _BLOCK_BYTES):
        value = _compress(_block(value, chunk[i : i + _BLOCK_BYTES], counter, flags | start))[:8]
        start = 0
    return _block(value, chunk[last:], counter, flags | start | _CHUNK_END)


def _parent(key: _Words, left: _Words, right: _Words, flags: int) -> _Node:
    """Return the open node above two chaining values."""
    return _Node(key, left + right, 0, _BLOCK_BYTES, flags | _PARENT)


def _tree(key: _Words, data: bytes, flags: int) -> _Node:
    """Return the open root node; the left subtree holds the largest power of two of chunks."""
    last = max(0, (len(data) - 1) // _CHUNK_BYTES)
    stack: list[_Words] = []
    for i in range(last):
        chunk = data[i * _CHUNK_BYTES : (i + 1) * _CHUNK_BYTES]
        value = _compress(_chunk(key, chunk, i, flags))[:8]
        total = i + 1
        while total & 1 == 0:  # a trailing zero bit of the chunk count is a finished subtree
            value = _compress(_parent(key, stack.pop(), value, flags))[:8]
            total >>= 1
        stack.append(value)
    node = _chunk(key, data[last * _CHUNK_BYTES :], last, flags)
    while stack:
        node = _parent(key, stack.pop(), _compress(node)[:8], flags)
    return node


def _output(node: _Node, length: int) -> bytes:
    """Return `length` bytes of extended output of the root node (paper section 2.6)."""
    flags = node.flags | _ROOT
    blocks = (
        _compress(_Node(node.value, node.words, i, node.length, flags))
        for i in range(-(-length // _BLOCK_BYTES))
    )
    return b"".join(struct.pack("<16I", *words) for words in blocks)[:length]


def blake3(data: bytes, length: int = 32) -> bytes:
    """Hash `data` to `length` bytes (default 32)."""
    return _output(_tree(_IV, data, 0), length)


def blake3_keyed(key: bytes, data: bytes, length: int = 32) -> bytes:
    """Hash `data` under a 32-byte key to `length` bytes; another key length is an InputError."""
    if len(key) != 32:
        raise InputError(f"a BLAKE3 key has 32 bytes, not {len(key)}")
    return _output(_tree(struct.unpack("<8I", key), data, _KEYED_HASH), length)


def blake3_context_key(context: str) -> bytes:
    """Return the 32-byte key of the domain named by `context` (section 2.3)."""
    return _output(_tree(_IV, context.encode(), _DERIVE_KEY_CONTEXT), 32)


def blake3_derive_key(context: str, material: bytes, length: int = 32) -> bytes:
    """Derive `length` bytes from `material` in the domain named by `context` (section 2.3)."""
    key = struct.unpack("<8I", blake3_context_key(context))
    return _output(_tree(key, material, _DERIVE_KEY_MATERIAL), length)
