"""Claim: with segments a log grows by a record for many rows, whatever the number of workers.

Baseline: the same rows logged as steps, signed by the same workers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from logged_run import GeneratedRun, facts, new_log
from reporting import Report, Spread, parser, say

from anh_jax.run_directory import RunDirectory
from anh_jax.training.recorder import StepFacts, StepRecorder
from anh_jax.training.seams import AttemptGrant
from anh_jax.training.segments import open_segments
from attest.canonical import parse_hex_float
from attest.envelope import sign
from attest.keys import PrivateKey
from attest.log.sequencer import LocalLog
from attest.log.shipper import Shipper
from attest.segment import FACT
from attest.statements import (
    Attempt,
    Segment,
    Step,
    decode_statement,
    encode_statement,
)
from attest.step_file import StepFile, SyncPolicy

CLAIM = "log records, log bytes and CPU of one step, segments over step records"
_NO_SYNC = SyncPolicy(records=1 << 30, seconds=1e9)


@dataclass
class _Group:
    """A group of workers that signs rows and ships them, as steps or as segments."""

    folder: Path
    log: LocalLog
    shipper: Shipper
    recorders: list[StepRecorder]
    host: list[float] = field(default_factory=list[float])
    ship: list[float] = field(default_factory=list[float])

    def take(self, told: list[StepFacts]) -> None:
        """Sign a round of rows on every host and ship them; note CPU seconds a step."""
        for rank, recorder in enumerate(self.recorders):
            spent = _cpu(lambda recorder=recorder: [recorder.record(row) for row in told])
            if rank == 0:
                self.host.append(spent / len(told))
            recorder.sync()
        self.ship.append(_cpu(self.shipper.drain) / len(told))

    def logged(self) -> tuple[int, int]:
        """Return how many records the log holds for rows, and their bytes."""
        entries = self.log.entries(0, self.log.size)
        sizes = [
            len(entry.to_bytes())
            for entry in entries
            if isinstance(decode_statement(entry.payload), Step | Segment)
        ]
        return len(sizes), sum(sizes)

    def close(self) -> None:
        """Close files and log."""
        for recorder in self.recorders:
            recorder.close()
        self.log.close()


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    rows: list[tuple[str, ...]] = []
    for workers in options.workers:
        with tempfile.TemporaryDirectory(prefix="anh-bench-") as name:
            groups = {
                kind: _group(Path(name) / kind, workers, options, every=every)
                for kind, every in (("steps", 0), ("segments", options.every))
            }
            for number in range(options.rounds):
                told = _round(number, options.steps)
                for group in groups.values():
                    group.take(told)
                say(f"segments: {workers} workers, round {number + 1} of {options.rounds}")
            rows += _tell(groups, workers, options, report)
            for group in groups.values():
                group.close()
    report.table(
        f"{options.rounds} rounds of {options.steps} steps, segments of {options.every} rows",
        ("workers", "logged", "records a step", "bytes a step", "us CPU to sign", "us CPU to ship"),
        rows,
    )
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=12)
    made.add_argument("--steps", type=int, default=128, help="steps a round")
    made.add_argument("--every", type=int, default=64, help="rows of a segment")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    options = made.parse_args()
    if options.quick:
        options.rounds, options.steps, options.workers = 3, 64, [1, 8]
    return options


def _group(folder: Path, workers: int, options: argparse.Namespace, *, every: int) -> _Group:
    run = GeneratedRun(options.steps * options.rounds)
    keys = [PrivateKey.generate() for _ in range(workers)]
    contract, genesis, one = run.opening()
    begun = replace(
        cast(Attempt, decode_statement(one.payload)),
        worker_keys=tuple(key.public.hex() for key in keys),
        processes=workers,
        environment={FACT: f"every {every}"} if every else {},
    )
    attempt = sign(encode_statement(begun), [run.keys["run"]])
    for name in ("statements", "steps"):
        (folder / name).mkdir(parents=True)
    for name, envelope in (("contract", contract), ("genesis", genesis), ("attempt-1", attempt)):
        (folder / "statements" / f"{name}.json").write_bytes(envelope.to_bytes())
    grant = AttemptGrant(number=1, record=attempt.record_hash().hex(), segments=every)
    directory, last = RunDirectory(folder), options.steps * options.rounds
    recorders = [
        StepRecorder(
            run=run.run,
            attempt=grant.record,
            key=key,
            file=StepFile(directory.step_file(attempt=1, rank=rank), _NO_SYNC),
            previous=run.run,
            bound=parse_hex_float(str(facts(1)["bound"])),
            segments=open_segments(directory, grant, run_id=run.run, rank=rank, last_step=last),
        )
        for rank, key in enumerate(keys)
    ]
    log = new_log(run, folder / "log")
    shipper = Shipper(folder, log, author=run.keys["author"].public)
    shipper.drain()
    return _Group(folder, log, shipper, recorders)


def _round(number: int, steps: int) -> list[StepFacts]:
    told: list[StepFacts] = []
    for step in range(number * steps + 1, (number + 1) * steps + 1):
        known = facts(step)
        told.append(
            StepFacts(
                step=step,
                gradient_root=str(known["gradient_root"]),
                state_root=str(known["state_root"]),
                batch_root=str(known["batch_root"]),
                scalars=known["scalars"],  # type: ignore[arg-type]
                loss=parse_hex_float(str(known["loss"])),
            )
        )
    return told


def _tell(
    groups: dict[str, _Group], workers: int, options: argparse.Namespace, report: Report
) -> list[tuple[str, ...]]:
    steps = options.steps * options.rounds
    rows: list[tuple[str, ...]] = []
    for kind, group in groups.items():
        records, size = group.logged()
        signing, shipping = Spread.of(group.host), Spread.of(group.ship)
        cells = (f"{records / steps:.4f}", f"{size / steps:.0f}")
        times = (f"{1e6 * signing.median:.0f}", f"{1e6 * shipping.median:.0f}")
        rows.append((str(workers), kind, *cells, *times))
        report.figure(f"{kind}_{workers}_bytes", size / steps, "bytes a step")
        report.figure(f"{kind}_{workers}_ship_us", 1e6 * shipping.median, "us CPU a step")
    ratios = {
        "sign": Spread.of(_ratios(groups, lambda group: group.host)),
        "ship": Spread.of(_ratios(groups, lambda group: group.ship)),
    }
    texts = [f"{ratio.median:.3f}" for ratio in ratios.values()]
    sizes = [group.logged()[1] for group in groups.values()]
    rows.append((str(workers), "ratio", "", f"{sizes[1] / sizes[0]:.4f}", *texts))
    for name, ratio in ratios.items():
        report.figure(f"ratio_{workers}_{name}", ratio.median, "segments over steps", ratio)
    report.figure(f"ratio_{workers}_bytes", sizes[1] / sizes[0], "segments over steps")
    return rows


def _ratios(groups: dict[str, _Group], seconds: Callable[[_Group], list[float]]) -> list[float]:
    pairs = zip(seconds(groups["segments"]), seconds(groups["steps"]), strict=True)
    return [one / other for one, other in pairs]


def _cpu(work: Callable[[], object]) -> float:
    clock = time.thread_time()
    work()
    return time.thread_time() - clock


if __name__ == "__main__":
    main()
