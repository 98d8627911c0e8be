"""The detection table: what was counted, with exact limits, whether expected or not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anh_jax.redteam.attack import Attack, Expected, Outcome, weakest

_CONFIDENCE = 0.95
_HALVINGS = 200


@dataclass(frozen=True)
class Limits:
    """A two-sided exact binomial interval for a probability."""

    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One attack's line of the table.

    `margin` is as in `weakest`; `words` are those of the last trial nearest to it.
    """

    name: str
    family: str
    what: str
    expected: str
    n: int
    detected: int
    margin: float | None
    damage: Mapping[str, float]
    words: str

    @property
    def rate(self) -> float:
        """Return the share of trials that were detected; nan without any."""
        return self.detected / self.n if self.n else math.nan

    @property
    def met(self) -> bool:
        """Tell whether what was expected to be detected always was."""
        return not self.expected.startswith("detected") or self.detected == self.n > 0

    def document(self) -> dict[str, Any]:
        """Return the line as JSON values; an infinite margin is the string `inf`."""
        limits = clopper_pearson(self.detected, self.n)
        return {
            "name": self.name,
            "family": self.family,
            "what": self.what,
            "expected": self.expected,
            "n": self.n,
            "detected": self.detected,
            "limits": [limits.low, limits.high],
            "margin": json_number(self.margin),
            "damage": {name: json_number(value) for name, value in self.damage.items()},
            "met": self.met,
            "words": self.words,
        }


def line_of(attack: Attack[Any], outcome: Outcome, expected: Expected) -> Line:
    """Count an outcome against what was expected where the attack was carried out."""
    trials = outcome.trials
    missed = [trial for trial in trials if not trial.detected]
    told = (missed or list(trials))[:1]
    return Line(
        name=attack.name,
        family=attack.family,
        what=attack.what,
        expected=expected.text,
        n=len(trials),
        detected=sum(trial.detected for trial in trials),
        margin=weakest(trials),
        damage=outcome.damage,
        words=told[0].words if told else "",
    )


def clopper_pearson(successes: int, n: int) -> Limits:
    """Return the exact two-sided 95 % limits of a binomial probability.

    The limits are those p at which as many or more (or fewer) successes have probability 2.5 %
    (Clopper and Pearson, Biometrika 26, 1934). Without a trial they are 0 and 1.
    """
    tail = (1 - _CONFIDENCE) / 2
    if n == 0:
        return Limits(0.0, 1.0)
    low = 0.0 if successes == 0 else _root(lambda p: 1 - cumulative(successes - 1, n, p) - tail)
    high = 1.0 if successes == n else _root(lambda p: tail - cumulative(successes, n, p))
    return Limits(low, high)


def upper_limit(successes: int, n: int) -> float:
    """Return the exact one-sided 95 % upper limit of a binomial probability."""
    if n == 0 or successes == n:
        return 1.0
    return _root(lambda p: 1 - _CONFIDENCE - cumulative(successes, n, p))


def cumulative(successes: int, n: int, p: float) -> float:
    """Return the probability of at most so many successes in n trials."""
    return math.fsum(
        math.exp(
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            + k * math.log(p) + (n - k) * math.log1p(-p)
        )
        for k in range(successes + 1)
    )  # fmt: skip


def _root(rising: Any) -> float:
    """Return where a rising function of p crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def json_number(value: float | None) -> float | str | None:
    """Return a number that JSON can hold; one that is not finite as text."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def columns(lines: Sequence[Line]) -> list[list[str]]:
    """Return the table as text cells: name, n, rate with limits, margin, expected, damage."""
    rows: list[list[str]] = []
    for line in lines:
        limits = clopper_pearson(line.detected, line.n)
        damage = ", ".join(f"{name} {value:.3g}" for name, value in line.damage.items())
        rows.append(
            [
                line.name,
                f"{line.detected}/{line.n}",
                f"{limits.low:.2f}..{limits.high:.2f}",
                "-" if line.margin is None else f"{line.margin:.3g}",
                line.expected if line.met else f"MISSED ({line.expected})",
                damage,
            ]
        )
    return rows


HEADS = ("attack", "detected", "95 % limits", "margin", "expected", "damage")
