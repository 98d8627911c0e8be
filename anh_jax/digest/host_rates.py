"""How fast this host digests, signs and multiplies, measured in a moment on a small sample.

Seconds are CPU seconds, as in the benchmarks: other work on the host does not change them much.
"""

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anh_jax.digest.host import tree_digest
from attest.digest_tree import TILE_BYTES
from attest.keys import PrivateKey

_ROUNDS = 5
_ROW_BYTES = 1024  # about what a signed row is


@dataclass(frozen=True, slots=True)
class HostRates:
    """Hold the rates of one core of a host.

    Attributes:
        digest: bytes a second of `tree_digest`, in the algorithm asked for.
        small_tensor: seconds for a tensor much smaller than a tile. Arrays of numpy are timed, so
            that no accelerator is asked for; those of JAX take less, their layout is remembered.
        sha256: bytes a second of `hashlib.sha256` over one buffer.
        signature: seconds for signing a row.
    """

    digest: float
    small_tensor: float
    sha256: float
    signature: float


def measure_host(alg: str) -> HostRates:
    """Measure this host's rates: medians of five, about a fifth of a second in all."""
    values = np.random.default_rng(0).standard_normal((1024, 4096), dtype=np.float32)
    small = {f"{i:03}": np.full(TILE_BYTES // 256, i, np.uint8) for i in range(128)}
    data, key, row = values.tobytes(), PrivateKey.generate(), bytes(_ROW_BYTES)
    return HostRates(
        digest=values.nbytes / _median(lambda: tree_digest({"w": values}, step=0, alg=alg)),
        small_tensor=_median(lambda: tree_digest(small, step=0, alg=alg)) / len(small),
        sha256=values.nbytes / _median(lambda: hashlib.sha256(data)),
        signature=_median(lambda: key.sign(row)),
    )


def measure_products() -> float:
    """Measure float32 matrix products: floating-point operations a second of all cores."""
    side = 1024
    matrix = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    cores = len(os.sched_getaffinity(0))
    return cores * 2 * side**3 / _median(lambda: matrix @ matrix)


def _median(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)
