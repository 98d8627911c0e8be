"""What the two sizes in the tile rule cost and give: the host's rate, openings, aligned shards."""

from __future__ import annotations

import time
from contextlib import ExitStack
from unittest.mock import patch

import jax
from blake3 import blake3
from digest_state import Arrays
from reporting import Report, Spread, say

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from attest import digest_tree

# The smallest tile that may be cut, and the bytes that stay along the last axis.
SETTINGS = tuple((kib, row) for kib in (4, 16, 64) for row in (128, 256, 512))
_SHAPES = ((768, 3072), (4096, 14336), (8192, 8192))
_WIDTHS = {"f32": 4, "bf16": 2}


def compare_tiles(parameters: Arrays, rounds: int, report: Report) -> None:
    """Digest the same parameters under every setting, in turns, and tabulate the trade."""
    data = [_bytes_of(leaf) for leaf in parameters.values()]
    shares: dict[tuple[int, int], list[float]] = {setting: [] for setting in SETTINGS}
    openings: dict[tuple[int, int], int] = {}
    for number in range(rounds):
        for setting in SETTINGS:
            # Layouts are remembered by path, and the settings are constants of the format.
            tree = {f"{setting}": parameters}
            start = time.thread_time()
            for piece in data:
                blake3(piece).digest()
            base = time.thread_time() - start
            with _tiles_of(setting):
                start = time.thread_time()
                digest = tree_digest(tree, step=0)
                shares[setting].append(base / (time.thread_time() - start))
                if number == 0:
                    path = (f"{setting}", "h0/mlp/up")
                    openings[setting] = len(open_tile(tree, digest, path=path, index=(0, 0)))
        say(f"tile sizes: round {number + 1} of {rounds}")
    _tell(shares, openings, report)
    _tell_grids(report)


def _bytes_of(leaf: jax.Array) -> memoryview:
    return memoryview(leaf).cast("B")


def _tiles_of(setting: tuple[int, int]) -> ExitStack:
    """Set the two sizes for the time of a `with` block."""
    kib, row = setting
    stack = ExitStack()
    stack.enter_context(patch.object(digest_tree, "TILE_BYTES", kib << 10))
    stack.enter_context(patch.object(digest_tree, "LAST_AXIS_BYTES", row))
    return stack


def _tell(
    shares: dict[tuple[int, int], list[float]],
    openings: dict[tuple[int, int], int],
    report: Report,
) -> None:
    rows: list[tuple[str, ...]] = []
    for kib, row in SETTINGS:
        share = Spread.of(shares[kib, row])
        rows.append((f"{kib} KiB", f"{row} B", share.text(3), f"{openings[kib, row]:,}"))
        report.figure(f"tiles_{kib}kib_rows_{row}_vs_blake3", share.median, "of blake3", share)
        report.figure(f"opening_bytes_{kib}kib_rows_{row}", openings[kib, row], "bytes")
    header = ("smallest tile", "smallest row", "host over blake3, CPU", "opening of mlp/up, bytes")
    report.table("the parameters of the state, medians (quartiles)", header, rows)


def _tell_grids(report: Report) -> None:
    """Tabulate the grid: the largest power of two each axis can be sharded in, tiles whole."""
    rows: list[tuple[str, ...]] = []
    for setting in SETTINGS:
        with _tiles_of(setting):
            grids = [
                digest_tree.tile_grid(shape, width)
                for shape in _SHAPES
                for width in _WIDTHS.values()
            ]
        cells = (f"{a} x {b}" for a, b in grids)
        rows.append((f"{setting[0]} KiB", f"{setting[1]} B", *cells))
    names = (f"{a}x{b} {name}" for a, b in _SHAPES for name in _WIDTHS)
    header = ("smallest tile", "smallest row", *names)
    report.table("aligned shards, at most: axis 0 (FSDP) x axis 1 (FSDP or TP)", header, rows)
