"""The order in which a run sees its examples: a keyed permutation, fixed byte by byte.

Nothing here may ever change: an auditor derives the examples of a step from this rule alone
(docs/protocol.md, "Data and batches"). Its name in the contract is `feistel-sha256/v1`.

The permutation of [0, n) for a seed and an epoch (both 0 to 2^64 - 1; n is 1 to 2^62):

    h = max(1, ceil(bits / 2)), where bits is the length of n - 1 in binary digits
    F(r, x) = the first 8 bytes of SHA-256(message), read as a little-endian integer, mod 2^h
    message = "anh v1 order" || 0x00 || seed || epoch || r || x
              (13 bytes of ASCII and zero, then four unsigned 64-bit little-endian integers)
    one pass over i < 2^(2h):  L = i >> h, R = i mod 2^h;
                               for r = 0 ... 9: (L, R) = (R, L xor F(r, R));
                               the result is L * 2^h + R
    permuted(i) = the first value below n among pass(i), pass(pass(i)), ...   (cycle walking)

A balanced Feistel network of ten rounds, as in NIST SP 800-38G (FF1), with SHA-256 as its round
function; cycle walking is Black and Rogaway's (CT-RSA 2002). Example positions run over epochs
without a gap: position p = (step - 1) * batch_size + i is example permuted(p mod n) of epoch
p div n, so a batch may end one epoch and begin the next and never needs padding.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from anh_jax.errors import DataError

ORDER = "feistel-sha256/v1"

_CONTEXT = b"anh v1 order\x00"
_ROUNDS = 10
_MAX_EXAMPLES = 2**62
_MAX_WORD = 2**64 - 1
# Below, the round function is tabulated: 10 * 2^14 hashes (0.2 s) cover 2^28 examples.
_MAX_TABLE_BITS = 14
# Below, a whole epoch is kept: 8 MB of indices.
_MAX_KEPT_EPOCH = 10**6


def examples_for_step(
    seed: int, step: int, batch_size: int, n: int
) -> Int64[np.ndarray, " batch_size"]:
    """Return the examples of a step (counted from 1): int64[batch_size] indices in [0, n).

    Raises DataError for a seed, step, size or count outside the rule's range.
    """
    if step < 1 or batch_size < 1:
        raise DataError(f"step {step}, batch of {batch_size}: both count from 1")
    _check(seed, 0, n)
    first = (step - 1) * batch_size
    parts: list[np.ndarray] = []
    taken = 0
    while taken < batch_size:
        epoch, offset = divmod(first + taken, n)
        count = min(batch_size - taken, n - offset)
        parts.append(_epoch_part(seed, epoch, n, offset, count))
        taken += count
    return np.concatenate(parts)


def permute(
    positions: Int64[np.ndarray, ...], *, seed: int, epoch: int, n: int
) -> Int64[np.ndarray, ...]:
    """Return the examples at positions (int64, each in [0, n)) of one epoch: int64, same shape."""
    _check(seed, epoch, n)
    values = np.asarray(positions, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= n):
        raise DataError(f"positions {values.min()} to {values.max()} lie outside [0, {n})")
    half = half_bits(n)
    values = _one_pass(values.reshape(-1), seed, epoch, half)
    outside = np.flatnonzero(values >= n)
    while outside.size:
        walked = _one_pass(values[outside], seed, epoch, half)
        values[outside] = walked
        outside = outside[walked >= n]
    return values.reshape(np.shape(positions))


def half_bits(n: int) -> int:
    """Return h, the width in bits of each half of the network over [0, n)."""
    return max(1, ((n - 1).bit_length() + 1) // 2)


def round_value(seed: int, epoch: int, r: int, x: int, half: int) -> int:
    """Return F(r, x): the round function's value, in [0, 2^half)."""
    message = _CONTEXT + b"".join(word.to_bytes(8, "little") for word in (seed, epoch, r, x))
    return int.from_bytes(hashlib.sha256(message).digest()[:8], "little") & ((1 << half) - 1)


def _epoch_part(seed: int, epoch: int, n: int, offset: int, count: int) -> np.ndarray:
    if n <= _MAX_KEPT_EPOCH:
        return _whole_epoch(seed, epoch, n)[offset : offset + count]
    positions = np.arange(offset, offset + count, dtype=np.int64)
    return permute(positions, seed=seed, epoch=epoch, n=n)


@lru_cache(maxsize=4)
def _whole_epoch(seed: int, epoch: int, n: int) -> np.ndarray:
    _check(seed, epoch, n)
    whole = permute(np.arange(n, dtype=np.int64), seed=seed, epoch=epoch, n=n)
    whole.flags.writeable = False
    return whole


def _one_pass(values: np.ndarray, seed: int, epoch: int, half: int) -> np.ndarray:
    left, right = values >> half, values & ((1 << half) - 1)
    for r in range(_ROUNDS):
        left, right = right, left ^ _round(right, seed, epoch, r, half)
    return (left << half) | right


def _round(x: np.ndarray, seed: int, epoch: int, r: int, half: int) -> np.ndarray:
    if half <= _MAX_TABLE_BITS:
        return _round_tables(seed, epoch, half)[r][x]
    # Too wide to tabulate: each value that occurs is hashed once.
    distinct, where = np.unique(x, return_inverse=True)
    return _hashed(seed, epoch, r, distinct.tolist(), half)[where]


@lru_cache(maxsize=4)
def _round_tables(seed: int, epoch: int, half: int) -> np.ndarray:
    inputs = range(1 << half)
    return np.stack([_hashed(seed, epoch, r, inputs, half) for r in range(_ROUNDS)])


def _hashed(seed: int, epoch: int, r: int, inputs: range | list[int], half: int) -> np.ndarray:
    return np.array([round_value(seed, epoch, r, x, half) for x in inputs], dtype=np.int64)


def _check(seed: int, epoch: int, n: int) -> None:
    if not 1 <= n <= _MAX_EXAMPLES:
        raise DataError(f"{n} examples: the order is defined for 1 to 2^62")
    if not (0 <= seed <= _MAX_WORD and 0 <= epoch <= _MAX_WORD):
        raise DataError(f"seed {seed}, epoch {epoch}: the order is defined for 0 to 2^64 - 1")
