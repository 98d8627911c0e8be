"""What a report says about a run: read from its directory, whatever state the run is in.

A part that is missing or damaged does not stop the report; it is named in `troubles`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from anh_jax.line import Line, walk_line
from anh_jax.run_directory import RunDirectory
from attest.contract import Contract
from attest.envelope import Envelope
from attest.errors import AttestError, FormatError, RefusedError
from attest.policy import load_policy
from attest.proof import parse_proof
from attest.statements import Attempt, Audit, Final, Genesis, Property, Row, decode_statement
from launch.errors import CheckFailed
from launch.metrics_rows import MetricsRow, read_metrics_rows
from launch.report.plot import Point
from launch.unsigned_run import is_unsigned
from launch.verification import read_file, verify_proof

_T = TypeVar("_T")
_S = TypeVar("_S")


@dataclass(frozen=True, slots=True)
class Metrics:
    """What metrics.jsonl measured, step by step; after a resume, the newest row of each step."""

    loss: tuple[Point, ...] = ()
    seconds: tuple[Point, ...] = ()
    digest_seconds: tuple[Point, ...] = ()
    holdout_accuracy: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on run.proof under the run's own policy: its lines, its exit code, its time."""

    lines: tuple[str, ...]
    exit_code: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything the page shows; None or empty where the run has not come so far."""

    name: str
    contract: Contract
    metrics: Metrics
    genesis: Genesis | None
    run: str | None
    attempts: tuple[Attempt, ...]
    line: Line | None
    final: Final | None
    audits: tuple[Audit, ...]
    properties: tuple[Property, ...]
    judgement: Judgement | None
    unsigned: bool
    troubles: tuple[str, ...]

    @property
    def steps_done(self) -> int:
        """Return the newest step that is measured or signed."""
        signed = len(self.line.rows) if self.line is not None else 0
        measured = self.metrics.loss[-1].step if self.metrics.loss else 0
        return max(signed, measured)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return the signed rows on the line."""
        return () if self.line is None else tuple(signed.row for signed in self.line.rows)


def read_facts(directory: Path) -> RunFacts:
    """Read a run directory; raises AnhError or AttestError where it holds no readable contract."""
    run = RunDirectory.open(directory)
    contract = Contract.from_bytes(run.contract_bytes())
    troubles: list[str] = []

    def tried(read: Callable[[], _T], fallback: _S) -> _T | _S:
        try:
            return read()
        except (AttestError, OSError, ValueError) as error:
            troubles.append(" ".join(str(error).split()))
        except Exception as error:
            # anh_jax's errors are one line by construction; anything else is a bug to see.
            if not hasattr(error, "exit_code"):
                raise
            troubles.append(str(error))
        return fallback

    genesis_envelope = tried(lambda: _envelope(run, "genesis"), None)
    genesis = tried(lambda: _statement(genesis_envelope, Genesis), None)
    run_hash = genesis_envelope.record_hash() if genesis_envelope is not None else None
    proven = tried(lambda: _proven(directory / "run.proof"), Proven())
    return RunFacts(
        name=directory.absolute().name,
        contract=contract,
        metrics=tried(lambda: read_metrics(run), Metrics()),
        genesis=genesis,
        run=None if run_hash is None else run_hash.hex(),
        attempts=tried(lambda: _attempts(run), ()),
        line=None if run_hash is None else tried(lambda: walk_line(run, run_id=run_hash), None),
        final=tried(lambda: _statement(_envelope(run, "final"), Final), None),
        audits=proven.audits,
        properties=proven.properties,
        judgement=tried(lambda: judge(directory), None),
        unsigned=is_unsigned(directory),
        troubles=tuple(troubles),
    )


def read_metrics(run: RunDirectory) -> Metrics:
    """Read metrics.jsonl into one series of points a column."""
    rows = read_metrics_rows(run.metrics)

    def column(value: Callable[[MetricsRow], float | None]) -> tuple[Point, ...]:
        pairs = ((row.step, value(row)) for row in rows)
        return tuple(Point(step, number) for step, number in pairs if number is not None)

    return Metrics(
        loss=column(lambda row: row.loss),
        seconds=column(lambda row: row.seconds),
        digest_seconds=column(lambda row: row.digest_seconds),
        holdout_accuracy=column(lambda row: row.holdout_accuracy),
    )


def _envelope(run: RunDirectory, name: str) -> Envelope | None:
    return run.statement(name) if run.has_statement(name) else None


def _statement(envelope: Envelope | None, kind: type[_T]) -> _T | None:
    if envelope is None:
        return None
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, kind):
        raise CheckFailed(f"a {kind.__name__} was expected, not a {statement.KIND} statement")
    return statement


def _attempts(run: RunDirectory) -> tuple[Attempt, ...]:
    found = (_statement(run.statement(f"attempt-{n}"), Attempt) for n in run.attempts())
    return tuple(attempt for attempt in found if attempt is not None)


@dataclass(frozen=True, slots=True)
class Proven:
    """What run.proof carries beside the trainer's own statements."""

    audits: tuple[Audit, ...] = ()
    properties: tuple[Property, ...] = ()


def _proven(path: Path) -> Proven:
    if not path.is_file():
        return Proven()
    proof = parse_proof(path.read_bytes())
    statements = [record.statement for record in proof.records]
    return Proven(
        audits=tuple(said for said in statements if isinstance(said, Audit)),
        properties=tuple(said for said in statements if isinstance(said, Property)),
    )


def judge(directory: Path) -> Judgement | None:
    """Verify run.proof under the run's own policy; None where either file is missing."""
    if not (directory / "run.proof").is_file() or not (directory / "policy.toml").is_file():
        return None
    policy = load_policy(directory / "policy.toml")
    try:
        found = verify_proof(read_file(directory / "run.proof"), policy)
    except (RefusedError, FormatError) as error:
        return Judgement((f"refused: {error}",), int(error.exit_code), 0.0)
    lines = tuple(found.verdict.text().rstrip("\n").split("\n"))
    return Judgement(lines, found.verdict.exit_code, found.milliseconds)


def decimal(text: str) -> float:
    """Read a hexadecimal float of a statement."""
    return float.fromhex(text)


def median(values: list[float]) -> float:
    """Return the middle value; nan for none."""
    finite = sorted(value for value in values if math.isfinite(value))
    return finite[len(finite) // 2] if finite else math.nan
