"""With which noise an audit estimates rounding: a function of the audit, so that nobody picks it.

An estimate is a draw. Whoever may draw until a step passes, or fails, decides it. So the seed
follows from the final record and from the nonces that drew the sample: they were committed before
that record, and are secret until it is there.
"""

import hashlib
from collections.abc import Mapping

from attest.errors import RefusedError
from attest.sample import NONCE_BYTES

__all__ = ["spread_seed", "step_seed"]

_SEED_BYTES = 8
_HASH_BYTES = 32


def spread_seed(final_record: str, auditor: str, nonces_by_keyid: Mapping[str, str]) -> int:
    """Return an audit's 64-bit seed, from which each weighed step's follows.

    The first 8 bytes, big endian, of SHA-256 over `"anh v1 spread seed" || 0x00 || final record ||
    keyid of the auditor || nonces sorted by keyid`, 32 bytes each. Two auditors of one sample have
    two seeds. Without nonces (chosen steps, or nothing announced) the trainer can foresee it: such
    an audit raises no level.

    Args:
        final_record: record hash of the final statement, hex.
        auditor: keyid of the receipt's signer, hex.
        nonces_by_keyid: the receipt's sources: nonces of 32 bytes, hex.

    Raises:
        RefusedError: if a part has another length.
    """
    parts = [_bytes(final_record, _HASH_BYTES), _bytes(auditor, _HASH_BYTES)]
    parts += [_bytes(nonces_by_keyid[keyid], NONCE_BYTES) for keyid in sorted(nonces_by_keyid)]
    return _first_bytes(b"anh v1 spread seed\x00" + b"".join(parts))


def step_seed(seed: int, step: int) -> int:
    """Return the 64-bit seed of one step's estimate, from that of its audit.

    The first 8 bytes of SHA-256 over `"anh v1 spread" || 0x00 || seed || step`, both 8 bytes; all
    big endian.
    """
    numbers = seed.to_bytes(_SEED_BYTES, "big") + step.to_bytes(8, "big")
    return _first_bytes(b"anh v1 spread\x00" + numbers)


def _first_bytes(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:_SEED_BYTES], "big")


def _bytes(text: str, length: int) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != length:
        raise RefusedError(
            f"spread seed: a part has {len(data)} bytes, not {length}", check="results"
        )
    return data
