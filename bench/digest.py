"""Claim: digesting on the host runs at about the speed of the hash it is made of.

Baselines, in the same run: `hashlib.sha256` over one buffer, and `blake3` over one buffer and one
thread. Other tile sizes are timed to show what the format's 4 KiB cost; the opening's size is
what they would do to the file that proves one tile.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from unittest.mock import patch

import jax
import numpy as np
from blake3 import blake3
from reporting import Report, Spread, parser, say

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from attest import digest_tree

CLAIM = "host digest in GB per CPU second, over one-buffer hashes; opening size by tile size"
_TILES_KIB = (4, 16, 64)
_SMALL_TENSORS = 200


@dataclass(frozen=True)
class Contender:
    """Something that hashes all of the benchmark's bytes once."""

    name: str
    label: str
    work: Callable[[], object]


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    side = options.side
    values = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    buffer = values.tobytes()
    baselines = [
        Contender("sha256", "hashlib.sha256, one buffer", lambda: hashlib.sha256(buffer).digest()),
        Contender("blake3", "blake3, one buffer, one thread", lambda: blake3(buffer).digest()),
    ]
    matrix = jax.block_until_ready(jax.numpy.asarray(values))
    trees = {kib: {f"matrix {kib}": matrix} for kib in _TILES_KIB}
    contenders = [
        _tiled(kib, alg, trees[kib]) for kib in _TILES_KIB for alg in digest_tree.ALGORITHMS
    ]
    rates = _in_turns([*baselines, *contenders], options.rounds, len(buffer))
    _tell(rates, [*baselines, *contenders], len(buffer), report)
    _openings(trees, report)
    _small(options.rounds, report)
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--side", type=int, default=4096, help="of a square float32 matrix")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.side = 3, 1024
    return options


def _tiled(kib: int, alg: str, tree: dict[str, jax.Array]) -> Contender:
    def work() -> object:
        with _tiles_of(kib):
            return tree_digest(tree, step=0, alg=alg)

    return Contender(f"{alg}_{kib}kib", f"tree_digest, {alg}, tiles of {kib} KiB", work)


def _tiles_of(kib: int) -> AbstractContextManager[object]:
    """Set the tile size, a constant of the format, for the time of a `with` block.

    The path of a tensor names its tile size here: layouts are remembered by path.
    """
    return patch.object(digest_tree, "TILE_BYTES", kib << 10)


def _in_turns(contenders: list[Contender], rounds: int, size: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            start = time.thread_time()
            contender.work()
            rates[contender.name].append(size / 1e9 / (time.thread_time() - start))
        say(f"digest: round {number + 1} of {rounds}")
    return rates


def _tell(
    rates: dict[str, list[float]], contenders: list[Contender], size: int, report: Report
) -> None:
    rows: list[tuple[str, ...]] = []
    for contender in contenders:
        own = rates[contender.name]
        spread = Spread.of(own)
        ratios = (
            Spread.of([a / b for a, b in zip(own, rates[base], strict=True)]).text(2)
            for base in ("sha256", "blake3")
        )
        rows.append((contender.label, spread.text(2), *ratios))
        report.figure(f"{contender.name}_gb_per_cpu_second", spread.median, "GB/s", spread)
    header = ("", "GB per CPU second", "over sha256", "over blake3")
    report.table(f"one float32 matrix of {size >> 20} MiB, medians (quartiles)", header, rows)


def _openings(trees: dict[int, dict[str, jax.Array]], report: Report) -> None:
    rows: list[tuple[str, ...]] = []
    for kib, tree in trees.items():
        with _tiles_of(kib):
            digest = tree_digest(tree, step=0)
            size = len(open_tile(tree, digest, path=(f"matrix {kib}",), index=(0, 0)))
        rows.append((f"tiles of {kib} KiB", f"{size:,}", f"{size / (kib << 10):.2f}"))
        report.figure(f"opening_bytes_{kib}kib", size, "bytes")
    report.table("the opening of one tile", ("", "bytes", "over the tile"), rows)


def _small(rounds: int, report: Report) -> None:
    """Time what a tensor costs that is smaller than a tile: the Python around its few hashes."""
    tensors = {
        f"layer {i:03}": {"bias": jax.numpy.full(64, i, "float32")} for i in range(_SMALL_TENSORS)
    }
    data = [np.asarray(tensor["bias"]).tobytes() for tensor in tensors.values()]
    costs: dict[str, list[float]] = {"hash": [], "digest": []}
    for step in range(10 * rounds):
        for name, work in (
            ("hash", lambda: [blake3(piece).digest() for piece in data]),
            ("digest", lambda: tree_digest(tensors, step=step)),  # noqa: B023
        ):
            start = time.thread_time()
            work()
            costs[name].append(1e6 * (time.thread_time() - start) / _SMALL_TENSORS)
    ratio = Spread.of([a / b for a, b in zip(costs["digest"], costs["hash"], strict=True)])
    spread = Spread.of(costs["digest"])
    report.table(
        f"{_SMALL_TENSORS} tensors of 256 bytes",
        ("", "us a tensor", "ratio"),
        (
            ("blake3 of each (baseline)", Spread.of(costs["hash"]).text(2), "1"),
            ("tree_digest", spread.text(2), ratio.text(1)),
        ),
    )
    report.figure("small_tensor_us", spread.median, "us CPU a tensor", spread)


if __name__ == "__main__":
    main()
