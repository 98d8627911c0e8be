"""Every number of one step, gathered from the step files, the metrics and the checkpoints."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anh_jax.line import SignedRow, SignedSegment, signed_rows, signed_segments, walk_line
from anh_jax.run_directory import RunDirectory
from attest.contract import Contract
from attest.envelope import Envelope
from attest.statements import Genesis, decode_statement
from launch.errors import CommandError
from launch.metrics_rows import MetricsRow, read_metrics_rows

_CHECKPOINT = re.compile(r"(?:step_)?0*(\d+)")


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """One step of a run; `signed` and `metrics` are None for state 0, which genesis commits.

    `others` are rows for the same step on branches of earlier attempts. `checkpoint` is the newest
    training checkpoint from which the step can be replayed, or None. `segment` is what the log
    holds for the step where its attempt logs segments; None otherwise, or while none covers it.
    """

    run: str
    step: int
    total: int
    alg: str
    state_root: str | None
    signed: SignedRow | None
    others: tuple[SignedRow, ...]
    metrics: MetricsRow | None
    checkpoint: int | None
    segment: SignedSegment | None


def read_step(directory: Path, step: int) -> StepNumbers:
    """Gather one step's numbers; raises CommandError where the run has not signed that step."""
    run = RunDirectory.open(directory)
    contract = Contract.from_bytes(run.contract_bytes())
    envelope = run.statement("genesis")
    genesis = genesis_of(envelope, directory)
    run_id = envelope.record_hash()
    if not 0 <= step <= contract.steps:
        raise CommandError(f"--step {step}: the contract has steps 0 to {contract.steps}")
    signed = None if step == 0 else _on_line(run, run_id, step)
    rows = [row for row in signed_rows(run) if row.row.step == step] if step else []
    metrics = {row.step: row for row in read_metrics_rows(run.metrics)}
    before = [kept for kept in retained_steps(run) if kept < max(step, 1)]
    return StepNumbers(
        run=run_id.hex(),
        step=step,
        total=contract.steps,
        alg=genesis.alg,
        state_root=genesis.state_root if signed is None else signed.row.state_root,
        signed=signed,
        others=tuple(row for row in rows if signed and row.record_hash != signed.record_hash),
        metrics=metrics.get(step),
        checkpoint=max(before, default=None),
        segment=None if signed is None else _segment(run, signed),
    )


def nearest_with_state_root(directory: Path, step: int, among: Iterable[int]) -> int | None:
    """Return the step nearest to `step`, of those named, whose state the run has signed.

    Of two as near the later is named; None where none of them has a state root.
    """
    run = RunDirectory.open(directory)
    line = walk_line(run, run_id=run.statement("genesis").record_hash())
    digested = {0} | {signed.row.step for signed in line.rows if signed.row.state_root is not None}
    return min(digested & set(among), key=lambda one: (abs(one - step), -one), default=None)


def _segment(run: RunDirectory, signed: SignedRow) -> SignedSegment | None:
    for found in signed_segments(run):
        covers = found.segment.first <= signed.row.step <= found.segment.last
        if covers and found.attempt == signed.attempt:
            return found
    return None


def genesis_of(envelope: Envelope, directory: Path) -> Genesis:
    """Read genesis out of its envelope."""
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, Genesis):
        raise CommandError(f"{directory}/statements/genesis.json: is a {statement.KIND} statement")
    return statement


def _on_line(run: RunDirectory, run_id: bytes, step: int) -> SignedRow:
    line = walk_line(run, run_id=run_id)
    if step > len(line.rows):
        raise CommandError(f"--step {step}: {run.root} has signed {len(line.rows)} steps so far")
    return line.rows[step - 1]


def retained_steps(run: RunDirectory) -> tuple[int, ...]:
    """Return the steps with a durable training checkpoint, ascending, without loading JAX.

    A checkpoint has its final name only once it is complete, so names are enough.
    """
    if not run.checkpoints.is_dir():
        return ()
    found = (_CHECKPOINT.fullmatch(path.name) for path in run.checkpoints.iterdir())
    return tuple(sorted(int(match[1]) for match in found if match))
