"""Claim: signing, appending and logging a step costs a fraction of a millisecond.

Baseline: one Ed25519 signature over the same bytes, which nothing can do without.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from logged_run import GeneratedRun, facts, new_log
from reporting import Report, Spread, parser, say

from anh_jax.training.recorder import StepFacts, StepRecorder
from attest.canonical import parse_hex_float
from attest.envelope import pae
from attest.log.sequencer import LocalLog
from attest.log.shipper import BATCH, Shipper
from attest.step_file import StepFile, SyncPolicy, read

CLAIM = "signing, appending and logging one step, in microseconds, over one Ed25519 signature"
_NO_SYNC = SyncPolicy(records=1 << 30, seconds=1e9)
_PARTS = {
    "signature": "one signature (baseline)",
    "record": "sign and append, not synced",
    "synced": "sign and append, default sync policy",
    "ship": "read, join, admit, commit (shipper)",
    "admit": "of this: admit and commit",
    "checkpoint": "sign and witness a checkpoint, each",
}


@dataclass
class Clock:
    """Seconds a step of each part, one entry a round: CPU of this thread, and on the wall."""

    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, steps: int, work: Callable[[], object]) -> None:
        """Do the work of `steps` steps and note what one of them took."""
        cpu, wall = time.thread_time(), time.perf_counter()
        work()
        self.cpu.setdefault(name, []).append((time.thread_time() - cpu) / steps)
        self.wall.setdefault(name, []).append((time.perf_counter() - wall) / steps)


class _TimedLog:
    """A log whose appends are timed on their own."""

    def __init__(self, log: LocalLog, clock: Clock, steps: int) -> None:
        self._log, self._clock, self._steps = log, clock, steps

    def append(self, envelopes: list[object], **keys: object) -> None:
        if len(envelopes) <= 1:  # contract, genesis, attempt
            self._log.append(envelopes, **keys)  # type: ignore[arg-type]
            return
        self._clock.time("admit", len(envelopes), lambda: self._log.append(envelopes))  # type: ignore[arg-type]

    def checkpoint(self) -> None:
        """Leave it to the benchmark: it is timed apart."""

    def index_of(self, record_hash: bytes) -> int | None:
        return self._log.index_of(record_hash)


class _Rounds:
    """Signs and ships the steps of one generated run, a round at a time."""

    def __init__(self, run: GeneratedRun, folder: Path, log: LocalLog, steps: int) -> None:
        self.clock = Clock()
        self._run, self._folder, self._steps, self._log = run, folder, steps, log
        names = ("contract", "genesis", "attempt-1")
        for name in ("statements", "steps"):
            (folder / name).mkdir()
        for name, envelope in zip(names, run.opening(), strict=True):
            (folder / "statements" / f"{name}.json").write_bytes(envelope.to_bytes())
        self._file = folder / "steps" / "1-0.jsonl"
        self._synced = self._recorder(self._file, SyncPolicy())
        self._plain = self._recorder(folder / "plain.jsonl", _NO_SYNC)
        timed = _TimedLog(log, self.clock, steps)
        self._shipper = Shipper(folder, timed, author=run.keys["author"].public)  # type: ignore[arg-type]
        self._shipper.drain()

    def take(self, number: int) -> None:
        """Take one round of steps through every part."""
        clock, steps = self.clock, self._steps
        told = [_told(step) for step in range(number * steps + 1, (number + 1) * steps + 1)]
        clock.time("record", steps, lambda: [self._plain.record(f) for f in told])
        clock.time("synced", steps, lambda: [self._synced.record(f) for f in told])
        self._synced.sync()
        messages = [pae(e.payload) for _, e in zip(range(steps), read(self._file), strict=False)]
        key = self._run.keys["worker"]
        clock.time("signature", steps, lambda: [key.sign(message) for message in messages])
        clock.time("ship", steps, self._shipper.drain)
        clock.time("checkpoint", 1, self._log.checkpoint)

    def close(self) -> None:
        """Close the files."""
        self._synced.close()
        self._plain.close()

    def _recorder(self, path: Path, policy: SyncPolicy) -> StepRecorder:
        return StepRecorder(
            run=self._run.run,
            attempt=self._run.attempt,
            key=self._run.keys["worker"],
            file=StepFile(path, policy),
            previous=self._run.run,
            bound=parse_hex_float(str(facts(1)["bound"])),
        )


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    run = GeneratedRun(options.steps * options.rounds)
    with (
        tempfile.TemporaryDirectory(prefix="anh-bench-") as name,
        new_log(run, Path(name) / "log") as log,
    ):
        rounds = _Rounds(run, Path(name), log, options.steps)
        for number in range(options.rounds):
            rounds.take(number)
            say(f"signing: round {number + 1} of {options.rounds}")
        rounds.close()
    _tell(rounds.clock, options, report)
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument(
        "--steps", type=int, default=BATCH, help="steps a round, one batch to the log"
    )
    options = made.parse_args()
    if options.quick:
        options.rounds, options.steps = 4, 64
    return options


def _told(step: int) -> StepFacts:
    known = facts(step)
    return StepFacts(
        step=step,
        gradient_root=str(known["gradient_root"]),
        state_root=str(known["state_root"]),
        batch_root=str(known["batch_root"]),
        scalars=known["scalars"],  # type: ignore[arg-type]
        loss=parse_hex_float(str(known["loss"])),
    )


def _tell(clock: Clock, options: argparse.Namespace, report: Report) -> None:
    rows: list[tuple[str, ...]] = []
    for name, label in _PARTS.items():
        cpu, wall = Spread.of(clock.cpu[name]), Spread.of(clock.wall[name])
        ratio = Spread.of(
            [a / b for a, b in zip(clock.cpu[name], clock.cpu["signature"], strict=False)]
        )
        rows.append((label, f"{1e6 * cpu.median:.0f}", f"{1e6 * wall.median:.0f}", ratio.text(1)))
        report.figure(f"{name}_us", 1e6 * cpu.median, "us CPU a step")
    report.table(
        f"{options.rounds} rounds of {options.steps} steps",
        ("", "us CPU a step", "us wall a step", "ratio of CPU (quartiles)"),
        rows,
    )
    rate = 1 / Spread.of(clock.wall["admit"]).median
    print(f"  the log admits {rate:,.0f} records a second, {options.steps} at a time")
    report.figure("admission_records_per_second", rate, "records/s")
    synced = 1e6 * Spread.of(clock.wall["synced"]).median
    report.figure("synced_wall_us", synced, "us wall a step")


if __name__ == "__main__":
    main()
