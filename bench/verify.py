"""Claim: verifying a run costs milliseconds and a proof of kilobytes, however long the run was.

Baseline: the run of ten steps. Every row is generated, signed and admitted by a real log; the proof
holds contract, genesis, attempt, final, one audit of an auditor's own sample, one property and the
status of a monitor that read the whole log; the policy demands all of them.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from logged_run import GeneratedRun, new_log, reader_policy
from reporting import Report, Spread, parser, say

from attest.assembly import assemble
from attest.client import verify_run
from attest.envelope import Envelope
from attest.log.sequencer import LocalLog
from attest.log.shipper import BATCH
from attest.policy import load_policy
from attest.proof import encode_proof
from attest.verdict import Verdict

CLAIM = "time to verify a run proof and its size, against the number of steps"
_LARGEST_PROOF = 16 * 1024


@dataclass(frozen=True)
class Proven:
    """A run's proof and policy on disk, and how long its log took to take the rows."""

    steps: int
    proof: Path
    policy: Path
    logging: float


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    with tempfile.TemporaryDirectory(prefix="anh-bench-") as folder:
        runs = [_prove(Path(folder) / str(steps), steps) for steps in options.steps]
        times = _verify_in_turns(runs, options.rounds)
        process = _process_in_turns(runs, options.processes, Path(folder) / "home")
        _tell(runs, times, process, report)
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--steps", type=int, nargs="+", default=[10, 1000, 100_000])
    made.add_argument("--rounds", type=int, default=100, help="verifications of each proof")
    made.add_argument("--processes", type=int, default=7, help="runs of `anh verify` on each")
    options = made.parse_args()
    if options.quick:
        options.steps, options.rounds, options.processes = [10, 1000], 10, 2
    return options


def _prove(folder: Path, steps: int) -> Proven:
    folder.mkdir()
    run = GeneratedRun(steps)
    proof, policy = folder / "run.proof", folder / "policy.toml"
    with new_log(run, folder / "log") as log:
        contract, *rest = run.opening()
        log.append([contract], keys=[run.keys["author"].public])
        log.append(rest)
        log.append([run.intent()], keys=[run.keys["auditor"].public])
        logging = _log_rows(log, run.signed_steps(), steps)
        log.append([run.final()])
        log.append(run.judged())
        log.checkpoint()
        log.append([run.status(log)], keys=[run.keys["monitor"].public])
        proof.write_bytes(encode_proof(assemble(log, run.run, log.checkpoint())))
        policy.write_text(reader_policy(run, log))
    return Proven(steps, proof, policy, logging)


def _log_rows(log: LocalLog, rows: Iterator[Envelope], steps: int) -> float:
    start = time.perf_counter()
    for number in range(math.ceil(steps / BATCH)):
        log.append(list(islice(rows, BATCH)))
        if number % 64 == 63:
            log.checkpoint()
            say(f"{steps} steps: {(number + 1) * BATCH} logged")
    next(rows, None)  # the line is closed when the rows have run out
    return time.perf_counter() - start


def _verify_in_turns(runs: list[Proven], rounds: int) -> dict[int, list[float]]:
    """Time the client alone, in CPU milliseconds: it only computes, and never waits."""
    times: dict[int, list[float]] = {run.steps: [] for run in runs}
    for _ in range(rounds):
        for run in runs:
            data, policy = run.proof.read_bytes(), load_policy(run.policy)
            start = time.thread_time()
            _expect(verify_run(data, policy))
            times[run.steps].append(1e3 * (time.thread_time() - start))
    return times


def _expect(verdict: Verdict) -> None:
    if verdict.exit_code:
        raise SystemExit(f"the generated run does not verify: {verdict.headline()}")


def _process_in_turns(runs: list[Proven], rounds: int, home: Path) -> dict[int, list[float]]:
    """Time whole processes of `anh verify`, imports included."""
    times: dict[int, list[float]] = {run.steps: [] for run in runs}
    for number in range(rounds):
        for run in runs:
            command = [sys.executable, "-m", "launch", "verify", run.proof, "--policy", run.policy]
            start = time.perf_counter()
            subprocess.run(
                [str(part) for part in command],
                check=True,
                stdout=subprocess.DEVNULL,
                env={"ANH_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1])},
            )
            times[run.steps].append(1e3 * (time.perf_counter() - start))
        say(f"whole processes: round {number + 1} of {rounds}")
    return times


def _tell(
    runs: list[Proven],
    times: dict[int, list[float]],
    process: dict[int, list[float]],
    report: Report,
) -> None:
    first = runs[0].steps
    rows: list[tuple[str, ...]] = []
    for run in runs:
        spread = Spread.of(times[run.steps])
        pairs = zip(times[run.steps], times[first], strict=True)
        ratio = Spread.of([a / b for a, b in pairs])
        whole = Spread.of(process[run.steps])
        size = run.proof.stat().st_size
        rows.append(
            (
                f"{run.steps:,} steps",
                spread.text(2),
                ratio.text(2),
                f"{size:,}",
                whole.text(0),
                f"{run.logging:.1f}",
            )
        )
        report.figure(f"verify_ms_{run.steps}", spread.median, "ms CPU", spread)
        report.figure(f"proof_bytes_{run.steps}", size, "bytes")
        report.figure(f"verify_process_ms_{run.steps}", whole.median, "ms", whole)
        report.figure(f"verify_ratio_{run.steps}", ratio.median, "ratio", ratio)
    header = ("", "verify CPU ms", "ratio", "proof bytes", "`anh verify` ms", "logging s")
    report.table("medians (quartiles); ratio to the shortest run", header, rows)
    largest = max(run.proof.stat().st_size for run in runs)
    print(f"  goal: proofs of at most {_LARGEST_PROOF:,} bytes; the largest has {largest:,}")


if __name__ == "__main__":
    main()
