"""`anh show`: every number of one step, and how to replay it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launch.output import Form, emit, json_option, table

if TYPE_CHECKING:
    from launch.step_numbers import StepNumbers


@click.command(name="show")
@click.argument("directory", metavar="D", type=click.Path(path_type=Path))
@click.option("--step", type=int, required=True, help="Steps completed; 0 is the fresh state.")
@json_option
def command(*, directory: Path, step: int, form: Form) -> None:
    """Print every number of one step, and how to replay it.

    The signed numbers come from the step files of the run directory D, the timings from its
    unsigned metrics.jsonl.
    """
    from launch.step_numbers import read_step

    numbers = read_step(directory, step)
    emit(form, document(numbers), _lines(numbers, directory))


def document(numbers: "StepNumbers") -> dict[str, Any]:
    """Return the step as the JSON answer gives it: digests in hex, floats as hex and decimal."""
    signed = numbers.signed
    found: dict[str, Any] = {
        "run": numbers.run,
        "step": numbers.step,
        "steps": numbers.total,
        "alg": numbers.alg,
        "stateRoot": numbers.state_root,
        "row": None,
        "metrics": None,
        "replayFrom": numbers.checkpoint,
        "otherAttempts": sorted({row.attempt for row in numbers.others}),
        "segment": None,
    }
    if signed is not None:
        row = signed.row
        found["row"] = {
            "attempt": signed.attempt,
            "record": signed.record_hash.hex(),
            "rowHash": signed.row_hash.hex(),
            "prev": row.prev,
            "gradientRoot": row.gradient_root,
            "batchRoot": row.batch_root,
            "loss": row.loss,
            "globalNorm": row.scalars.global_norm,
            "weight": row.scalars.weight,
            "finite": row.scalars.finite,
            "bound": row.bound,
        }
    if numbers.segment is not None:
        segment = numbers.segment.segment
        found["segment"] = {
            "record": numbers.segment.record,
            "first": segment.first,
            "last": segment.last,
            "rowsRoot": segment.rows_root,
        }
    if numbers.metrics is not None:
        metrics = numbers.metrics
        found["metrics"] = {
            "loss": metrics.loss,
            "seconds": metrics.seconds,
            "digest_seconds": metrics.digest_seconds,
            "holdout_accuracy": metrics.holdout_accuracy,
            **metrics.extra,
        }
    return found


def _lines(numbers: "StepNumbers", directory: Path) -> list[str]:
    signed = numbers.signed
    if signed is None:
        lines = [f"step 0 of {numbers.total}: the fresh state, committed by genesis"]
        return lines + table([("run", numbers.run), ("state", str(numbers.state_root))])
    row = signed.row
    mean = _mean(row.loss, row.scalars.weight)
    pairs = [
        ("loss (mean)", "-" if mean is None else f"{mean:.6g}"),
        ("loss (sum)", _both(row.loss)),
        ("weight", _both(row.scalars.weight)),
        ("gradient norm", _both(row.scalars.global_norm)),
        ("all finite", "yes" if row.scalars.finite else "no: the update was skipped"),
        ("declared bound", "none" if row.bound is None else _both(row.bound)),
        ("gradient root", row.gradient_root),
        ("state root", row.state_root or "not hashed at this step (digest policy)"),
        ("batch root", row.batch_root),
        ("previous row", row.prev),
        ("row hash", signed.row_hash.hex()),
        ("record", signed.record_hash.hex()),
        ("run", numbers.run),
    ]
    if numbers.segment is not None:
        segment = numbers.segment.segment
        where = f"{numbers.segment.record} (steps {segment.first} to {segment.last})"
        pairs.insert(-1, ("logged in segment", where))
    lines = [f"step {numbers.step} of {numbers.total}, attempt {signed.attempt}", *table(pairs)]
    if numbers.metrics is not None:
        lines += ["measured (unsigned)", *table(_measured(numbers))]
    for other in numbers.others:
        same = "equal" if other.row_hash == signed.row_hash else "DIFFERENT"
        lines.append(f"attempt {other.attempt} also took this step: {same} row")
    return [*lines, *_replay(numbers, directory)]


def _measured(numbers: "StepNumbers") -> list[tuple[str, str]]:
    metrics = numbers.metrics
    if metrics is None:
        return []
    named = {
        "seconds": metrics.seconds,
        "digest seconds": metrics.digest_seconds,
        "hold-out accuracy": metrics.holdout_accuracy,
    } | dict(metrics.extra)
    return [(name, f"{value:.6g}") for name, value in named.items() if value is not None]


def _replay(numbers: "StepNumbers", directory: Path) -> list[str]:
    from launch.cli import VERBS

    start = numbers.checkpoint
    whence = "from state 0" if start is None else f"from the training checkpoint of step {start}"
    known = {verb.name for verb in VERBS}
    if "replay" in known:
        return [f"replay ({whence}): anh replay {directory} --step {numbers.step}"]
    if "audit" in known:
        return [f"replay ({whence}): anh audit {directory} --steps {numbers.step}"]
    return [f"replay: {whence}"]


def _both(text: str) -> str:
    return f"{float.fromhex(text):.6g}  ({text})"


def _mean(loss: str, weight: str) -> float | None:
    total = float.fromhex(weight)
    return float.fromhex(loss) / total if total else None
