"""The rows of metrics.jsonl: unsigned measurements, one JSON object a step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.errors import CommandError


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """One step's measurements; a number that is missing is None.

    `loss` is the mean over the step's examples; `extra` holds the numbers beside the named ones.
    """

    step: int
    loss: float | None = None
    seconds: float | None = None
    digest_seconds: float | None = None
    holdout_accuracy: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict[str, float])


_NAMED = ("loss", "seconds", "digest_seconds", "holdout_accuracy")


def read_metrics_rows(path: Path) -> tuple[MetricsRow, ...]:
    """Read the file, sorted by step; of rows for one step the newest counts.

    A torn last line is left out, and a missing file has no rows. Raises CommandError naming the
    line for any other damage.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return ()
    by_step: dict[int, MetricsRow] = {}
    for number, line in enumerate(lines, start=1):
        row = parse_row(line, f"{path}, line {number}")
        by_step[row.step] = row
    return tuple(by_step[step] for step in sorted(by_step))


def parse_row(line: bytes, where: str) -> MetricsRow:
    """Read one line; raises CommandError naming `where` if it is no row."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise CommandError(f"{where}: not JSON; remove the line") from None
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        raise CommandError(f"{where}: not an object with a step; remove the line")
    step = value.pop("step")
    numbers = {
        str(name): float(number)
        for name, number in value.items()
        if isinstance(number, int | float) and not isinstance(number, bool)
    }
    named = {name: numbers.pop(name, None) for name in _NAMED}
    return MetricsRow(step=step, extra=numbers, **named)
