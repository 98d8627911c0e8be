"""Figures that the benchmarks measured, where the checkout that holds them is at hand.

A figure counts for the machine it was measured on: a host's where this host has the same processor
and as many cores, a chip's for chips of its kind. A file of a chip's figures has its `device`, the
`device_kind` of JAX, beside what `bench/collect.py` writes.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anh_jax.digest.forecast import Basis, Figure
from anh_jax.digest.roofline import Chip, chip_of
from anh_jax.environment import cpu_model

RESULTS = Path(__file__).resolve().parent.parent / "bench" / "results"


@dataclass(frozen=True)
class BenchFigures:
    """Hold the newest figures of one machine, and the words that name it."""

    benches: dict[str, Any]
    machine: str

    def figure(self, bench: str, name: str, *, scale: float = 1.0) -> Figure | None:
        """Return `scale` times a figure of `bench/<bench>.py`, or None where it has none."""
        value: Any = self.benches
        for key in (bench, "figures", name, "value"):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, int | float) or value <= 0:
            return None
        source = f"{self.machine}: python bench/{bench}.py, {name}"
        return Figure(scale * value, Basis.MEASURED, source)


def host_figures(results: Path | None = None) -> BenchFigures | None:
    """Return what was measured on a host like this one, or None."""
    for document in _documents(results):
        if document.get("cpu") == cpu_model() and document.get("cores") == os.cpu_count():
            machine = f"{document['cpu']}, {document['cores']} cores"
            return _figures(document, machine)
    return None


def chip_figures(chip: Chip, results: Path | None = None) -> BenchFigures | None:
    """Return what was measured on a chip of this kind, or None."""
    for document in _documents(results):
        kind = document.get("device")
        if isinstance(kind, str) and chip_of(kind) == chip:
            return _figures(document, kind)
    return None


def _figures(document: dict[str, Any], machine: str) -> BenchFigures:
    benches = document.get("benches")
    day = str(document.get("date", "undated"))[:10]
    return BenchFigures(benches if isinstance(benches, dict) else {}, f"{machine}, {day}")


def _documents(results: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the documents there are; one that is no JSON object was measured by nobody."""
    for path in sorted((results or RESULTS).glob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            yield document
