"""Claim: a log takes thousands of records a second durably, and its size costs a reader nothing.

Baselines, in the same run: the same rows inserted into SQLite alone at the same durability,
aics-tlog writing tiles of the same leaves (where it is installed), one commit for each submitter.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from log_clients import ServedLog, spread_of_waits
from logged_run import GeneratedRun, new_log
from reporting import Report, Spread, parser, say
from simulated_log import MANY, ManyLeaves, make_log

from attest.envelope import Envelope
from attest.log.fsck import fsck
from attest.log.sequencer import LocalLog
from attest.merkle import HASH_BYTES, verify_inclusion
from attest.tiles import TileTree

CLAIM = "durable records a second, waits of single submitters, and what a large log costs"
BATCH = 256


class _Rounds:
    """Take the same records, a batch at a time, into each of the contestants by turns."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self._bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE entries (idx INTEGER PRIMARY KEY, record BLOB UNIQUE, leaf BLOB)",
        ):
            self._bare.execute(statement)
        self._writer = _aics_writer(folder / "aics")
        self._size = 0

    def take(self, log: LocalLog, batch: Sequence[Envelope]) -> None:
        """Time one batch in each."""
        rows = [
            (self._size + i, envelope.record_hash(), envelope.to_bytes())
            for i, envelope in enumerate(batch)
        ]
        leaves = [leaf for _, _, leaf in rows]
        self._time("bare", lambda: self._insert(rows))
        self._time("log", lambda: log.append(batch))
        self._time("checkpoint", log.checkpoint)
        if self._writer is not None:
            writer = self._writer
            self._time("aics", lambda: writer.append(leaves))
        self._size += len(batch)

    def _insert(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        self._bare.execute("BEGIN IMMEDIATE")
        self._bare.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        self._bare.execute("COMMIT")

    def _time(self, name: str, work: Callable[[], object]) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        work()
        self.cpu.setdefault(name, []).append(time.thread_time() - cpu)
        self.seconds.setdefault(name, []).append(time.perf_counter() - wall)


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="anh-bench-", dir=options.folder) as name:
        folder = Path(name)
        _ingest(folder, options, report)
        _singles(folder, options, report)
        _large(folder, options, report)
    _many(report)
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=40, help=f"batches of {BATCH} records")
    made.add_argument("--records", type=int, default=1_000_000, help="of the large log")
    made.add_argument("--clients", type=int, default=200, help="submitters at once")
    made.add_argument("--each", type=int, default=20, help="records that one of them submits")
    made.add_argument("--folder", default=None, help="where the logs are made, else the default")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.records, options.clients, options.each = 4, 20_000, 20, 3
    return options


def _ingest(folder: Path, options: argparse.Namespace, report: Report) -> None:
    run = GeneratedRun(options.rounds * BATCH)
    with new_log(run, folder / "log") as log:
        log.append(run.opening(), keys=[run.keys["author"].public])
        signed = list(run.signed_steps())
        rounds = _Rounds(folder)
        for number in range(options.rounds):
            rounds.take(log, signed[number * BATCH : (number + 1) * BATCH])
        say("log: ingest is timed")
    rows: list[tuple[str, ...]] = []
    labels = {
        "bare": "SQLite alone, the same rows (baseline)",
        "log": "append: judged, signatures checked, committed",
        "checkpoint": "of that a checkpoint after each batch",
        "aics": "aics-tlog, tiles of the same leaves, nothing judged",
    }
    for name in (name for name in labels if name in rounds.seconds):
        rate = BATCH / Spread.of(rounds.seconds[name]).median
        pairs = zip(rounds.seconds[name], rounds.seconds["bare"], strict=True)
        ratio = Spread.of([a / b for a, b in pairs])
        cpu = 1e6 * Spread.of(rounds.cpu[name]).median / BATCH
        rows.append((labels[name], f"{rate:,.0f}", f"{cpu:.0f}", ratio.text(2)))
        report.figure(f"{name}_cpu_us", cpu, "us CPU a record")
        report.figure(f"{name}_over_bare", ratio.median, "ratio of wall times", ratio)
    report.table(
        f"{options.rounds} batches of {BATCH} records",
        ("", "records/s", "us CPU a record", "wall time over the baseline"),
        rows,
    )
    rate = BATCH / Spread.of(rounds.seconds["log"]).median
    report.figure("ingest_per_second", rate, "records/s")
    found = fsck(folder / "log")
    print(f"  fsck judges {found.records_per_second:,.0f} records a second")
    report.figure("fsck_per_second", found.records_per_second, "records/s")


def _singles(folder: Path, options: argparse.Namespace, report: Report) -> None:
    with ServedLog(folder / "served", options.clients, options.each) as served:
        told = served.run()
    waits = spread_of_waits(told.waits)
    alone = Spread.of(_one_by_one(folder, 200))
    queued = 1e3 * options.clients * alone.median
    report.table(
        f"{options.clients} submitters at once, one record a request, {options.each} each; "
        f"the load generator is on core {told.core}",
        ("", "p50 ms", "p95 ms", "records/s", "server's CPU us a record"),
        [
            (
                "anh log serve",
                f"{waits.p50:.0f}",
                f"{waits.p95:.0f}",
                f"{told.per_second:,.0f}",
                f"{told.server_cpu_us:.0f}",
            ),
            ("one bare commit each, in turn (baseline)", f"{queued:.0f}", "", "", ""),
        ],
    )
    report.figure("p50_ms", waits.p50, "ms")
    report.figure("p95_ms", waits.p95, "ms")
    report.figure("single_per_second", told.per_second, "records/s")
    report.figure("single_server_cpu_us", told.server_cpu_us, "us CPU a record")
    report.figure("p50_over_bare_queue", waits.p50 / queued, "ratio")
    say("log: single submitters are timed")


def _one_by_one(folder: Path, count: int) -> list[float]:
    """Time commits of one row of the same size."""
    database = sqlite3.connect(folder / "one.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE entries (idx INTEGER PRIMARY KEY, record BLOB UNIQUE, leaf BLOB)"
    )
    seconds: list[float] = []
    for index in range(count):
        began = time.perf_counter()
        row = (index, os.urandom(32), os.urandom(1000))
        database.execute("INSERT INTO entries VALUES (?, ?, ?)", row)
        seconds.append(time.perf_counter() - began)
    database.close()
    return seconds


def _large(folder: Path, options: argparse.Namespace, report: Report) -> None:
    rows: list[tuple[str, ...]] = []
    for size in (options.records // 10, options.records):
        directory = folder / f"large {size}"
        make_log(directory, size, say)
        stored = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
        told = _in_a_process("open", directory)
        rows.append(
            (
                f"{size:,}",
                f"{stored / 2**30:.2f}",
                f"{told['seconds']:.1f}",
                f"{told['peak_mib']:.0f}",
                f"{told['proof_ms']:.2f}",
                f"{told['proof_p95_ms']:.2f}",
            )
        )
        name = "large" if size == options.records else "tenth"
        for key in ("seconds", "peak_mib", "proof_ms", "proof_p95_ms"):
            report.figure(f"{name}_{key}", told[key], key.rpartition("_")[2])
        report.figure(f"{name}_records", size, "records")
        report.figure(f"{name}_stored_gib", stored / 2**30, "GiB")
    report.table(
        "a log of simulated entries, opened (every leaf hashed) and asked for proofs",
        ("records", "GiB", "open s", "peak MiB", "proof ms", "p95 ms"),
        rows,
    )


def _in_a_process(what: str, directory: Path) -> dict[str, float]:
    script = Path(__file__).with_name("simulated_log.py")
    done = subprocess.run(
        [sys.executable, str(script), what, str(directory)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def _many(report: Report) -> None:
    """Prove and verify in a tree of 10^8 entries whose tiles are made when they are read."""
    leaves = ManyLeaves()
    tree = TileTree(leaves.read, MANY)
    root = tree.root()
    proving: list[float] = []
    checking: list[float] = []
    path: list[bytes] = []
    for number in range(200):
        index = (number * 48_271_313 + 17) % MANY
        fresh = TileTree(leaves.read, MANY)
        began = time.perf_counter()
        path = fresh.inclusion_path(index, MANY)
        middle = time.perf_counter()
        verify_inclusion(index, MANY, leaves.hash(index), path, root)
        proving.append(middle - began)
        checking.append(time.perf_counter() - middle)
    size = len(path) * HASH_BYTES
    proof, check = Spread.of([1e3 * s for s in proving]), Spread.of([1e6 * s for s in checking])
    report.table(
        f"a tree of {MANY:,} entries, tiles made when they are read",
        ("", "hashes", "bytes", "proof from tiles ms", "verify us"),
        [("inclusion", str(len(path)), str(size), proof.text(2), check.text(0))],
    )
    report.figure("many_proof_bytes", size, "bytes")
    report.figure("many_proof_ms", proof.median, "ms", proof)
    report.figure("many_verify_us", check.median, "us", check)


def _aics_writer(folder: Path):  # noqa: ANN202
    """Return the other implementation's durable writer, None where it is not installed."""
    try:
        from aics_tlog import DirectoryTileStore, IncrementalTileWriter
    except ImportError:
        return None
    return IncrementalTileWriter(DirectoryTileStore(folder))


if __name__ == "__main__":
    main()
