"""The audit sample: which steps are re-executed, and what an honest-looking sample is worth.

The beacon takes the run, the final record and nonces that were committed before it, and nothing
else: signatures, roots, checkpoints and times can be ground by whoever makes them.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from attest.errors import RefusedError

NONCE_BYTES = 32
_HASH_BYTES = 32
_WORD_BYTES = 8
_WORDS = 1 << 64
# math.comb with at most this many factors stays within milliseconds for any total below 2^53.
_EXACT_FACTORS = 2048
# exp() of less is zero in binary64.
_LOG_ZERO = -800.0


def commitment(nonce: bytes) -> bytes:
    """Commit to a nonce of 32 bytes: SHA-256("anh v1 nonce" || 0x00 || nonce)."""
    _check_length(nonce, NONCE_BYTES, "nonce")
    return hashlib.sha256(b"anh v1 nonce\x00" + nonce).digest()


def sample_steps(
    run: bytes,
    final_record: bytes,
    nonces_by_keyid: Mapping[str, bytes],
    total_steps: int,
    k: int,
) -> tuple[int, ...]:
    """Draw k distinct steps of 1..total_steps, in the order drawn.

    SHAKE-256("anh v1 sample" || 0x00 || run || final record || nonces sorted by keyid) is read as
    64-bit little-endian words. Words at or above the largest multiple of total_steps are rejected,
    the others taken modulo it. All steps, when k is all, come in order, without drawing.

    Args:
        run: record hash of genesis, 32 bytes.
        final_record: record hash of the final statement, 32 bytes.
        nonces_by_keyid: 32-byte nonces of the sources the policy names; empty when self-sampled.
        total_steps: the contract's T.
        k: how many steps, from 1 to T.

    Raises:
        RefusedError: if a length or count is out of range.
    """
    _check_length(run, _HASH_BYTES, "run")
    _check_length(final_record, _HASH_BYTES, "final record")
    for keyid, nonce in nonces_by_keyid.items():
        _check_length(nonce, NONCE_BYTES, f"nonce of key {keyid}")
    if not 1 <= k <= total_steps < _WORDS:
        raise RefusedError(
            f"sample of {k} out of {total_steps} steps is impossible", check="sample"
        )
    if k == total_steps:
        return tuple(range(1, total_steps + 1))
    nonces = b"".join(nonces_by_keyid[keyid] for keyid in sorted(nonces_by_keyid))
    limit = _WORDS - _WORDS % total_steps
    drawn: dict[int, None] = {}
    for word in _words(b"anh v1 sample\x00" + run + final_record + nonces, 2 * k):
        if word < limit:
            drawn[word % total_steps + 1] = None
            if len(drawn) == k:
                break
    return tuple(drawn)


def miss_probability(total: int, bad_fraction: float | Fraction, k: int) -> float:
    """Compute the chance that k of `total` steps, drawn without replacement, hold no bad one.

    Exact hypergeometric C(total - bad, k) / C(total, k), bad = ceil(bad_fraction * total); a float
    fraction means its shortest decimal, so 0.07 of 100 is 7. Correctly rounded up to 2048 drawn or
    bad steps, to about 1e-12 relative above.

    Raises:
        RefusedError: if k or the fraction is out of range.
    """
    # Comparisons with nan are false: it is refused here, before Fraction meets it.
    if not 0 <= bad_fraction <= 1 or not 0 <= k <= total or total < 1:
        raise RefusedError(
            f"miss probability of {k} out of {total} steps, bad {bad_fraction}: out of range",
            check="sample",
        )
    fraction = Fraction(repr(bad_fraction)) if isinstance(bad_fraction, float) else bad_fraction
    bad = math.ceil(fraction * total)
    # The same number with the roles of drawn and bad steps exchanged: take the shorter product.
    few, many = sorted((bad, k))
    if few + many > total:
        return 0.0
    if few <= _EXACT_FACTORS:
        return math.comb(total - many, few) / math.comb(total, few)
    return math.exp(math.fsum(_log_factors(total, few, many)))


def single_escape(total: int, k: int) -> float:
    """Compute the chance that one bad step among `total` is not among k sampled: 1 - k/total.

    Raises:
        RefusedError: if k is out of range.
    """
    if not 0 <= k <= total or total < 1:
        raise RefusedError(f"sample of {k} out of {total} steps is impossible", check="sample")
    return (total - k) / total


def _words(seed: bytes, count: int) -> Iterator[int]:
    """Yield the endless little-endian words of SHAKE-256(seed), computing ever longer prefixes."""
    shake = hashlib.shake_256(seed)
    at = 0
    while True:
        stream = shake.digest(count * _WORD_BYTES)
        while at < count:
            yield int.from_bytes(stream[at * _WORD_BYTES : (at + 1) * _WORD_BYTES], "little")
            at += 1
        count *= 2


def _log_factors(total: int, few: int, many: int) -> Iterator[float]:
    """Yield log((total - many - i) / (total - i)) until the product is zero in binary64."""
    reached = 0.0
    for i in range(few):
        term = math.log1p(-many / (total - i))
        reached += term
        yield term
        if reached < _LOG_ZERO:
            return


def _check_length(value: bytes, length: int, what: str) -> None:
    if len(value) != length:
        raise RefusedError(f"{what} has {len(value)} bytes, not {length}", check="sample")
