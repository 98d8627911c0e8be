"""Counts and durations of a service, in the text that Prometheus reads (format 0.0.4)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Gauge:
    """Hold one number as it is now."""

    name: str
    words: str
    value: float


@dataclass(slots=True)
class _Durations:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    total: float = 0.0


@dataclass(slots=True)
class Metrics:
    """Count events by name and label, and sort durations into buckets; threads may share it.

    `counters` maps the names that may be counted to what they mean and the name of their label,
    `durations` those that may be timed to what they mean.
    """

    counters: Mapping[str, tuple[str, str]]
    durations: Mapping[str, str]
    _counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    _times: dict[str, _Durations] = field(default_factory=dict[str, _Durations])
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, label: str, amount: int = 1) -> None:
        """Count `amount` events; labels come from a fixed set, never from a request."""
        with self._mutex:
            self._counts[name, label] = self._counts.get((name, label), 0) + amount

    def time(self, name: str, seconds: float) -> None:
        """Count one duration."""
        with self._mutex:
            found = self._times.setdefault(name, _Durations())
            found.counts[sum(seconds > bound for bound in _BOUNDS)] += 1
            found.total += seconds

    def text(self, gauges: Iterable[Gauge]) -> str:
        """Write everything counted, and the given numbers."""
        with self._mutex:
            lines = [*self._counter_lines(), *self._duration_lines()]
        for gauge in gauges:
            lines += _head(gauge.name, gauge.words, "gauge")
            lines.append(f"{gauge.name} {gauge.value:g}")
        return "\n".join(lines) + "\n"

    def _counter_lines(self) -> Iterable[str]:
        for name, (words, label) in self.counters.items():
            yield from _head(name, words, "counter")
            for (counted, value), count in sorted(self._counts.items()):
                if counted == name:
                    yield f'{name}{{{label}="{value}"}} {count}'

    def _duration_lines(self) -> Iterable[str]:
        for name, words in self.durations.items():
            yield from _head(name, words, "histogram")
            found = self._times.get(name, _Durations())
            below = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), found.counts, strict=True):
                below += count
                yield f'{name}_bucket{{le="{bound}"}} {below}'
            yield f"{name}_sum {found.total:g}"
            yield f"{name}_count {below}"


def _head(name: str, words: str, kind: str) -> list[str]:
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
