"""What every benchmark prints: a readable table, and with `--json` one last line for programs."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

# A benchmark runs where the tests run; the accelerator of a machine is not its business.
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@dataclass(frozen=True)
class Spread:
    """The median of some measurements and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one measurement."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def text(self, digits: int = 3) -> str:
        """Return `median (low to high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass
class Report:
    """Collects figures, prints tables as they come and the figures at the end."""

    claim: str
    figures: dict[str, dict[str, float | str]] = field(default_factory=dict)

    def figure(self, name: str, value: float, unit: str, spread: Spread | None = None) -> None:
        """Note one figure, with its quartiles where it has any."""
        entry: dict[str, float | str] = {"value": value, "unit": unit}
        if spread is not None:
            entry |= {"low": spread.low, "high": spread.high}
        self.figures[name] = entry

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with aligned columns: the first to the left, the others to the right."""
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        print(f"\n{title}")
        for row in (header, *rows):
            first = row[0].ljust(widths[0])
            rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            print("  ".join(("", first, *rest)))
        sys.stdout.flush()

    def close(self, form: str) -> None:
        """Print the line for programs where it was asked for."""
        if form == "json":
            print(json.dumps({"claim": self.claim, "figures": self.figures}))


def parser(claim: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=claim)
    made.add_argument(
        "--json", dest="form", action="store_const", const="json", default="text",
        help="end with one line of JSON",
    )  # fmt: skip
    made.add_argument("--quick", action="store_true", help="fewer rounds: to see that it runs")
    return made


def say(text: str) -> None:
    """Tell a person that waits how far it is."""
    print(text, file=sys.stderr, flush=True)
