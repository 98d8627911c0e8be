"""What an attack is: somebody who does something wrong, and what is expected of the checks.

An attack is carried out, never pretended: a cheating trainer produces a run that is signed over
what it really computed. What the checks say of it is then counted, whatever was expected.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

Verdict = Literal["detected", "bounded damage", "within noise"]


@dataclass(frozen=True)
class Expected:
    """What the checks are expected to do.

    `bounded damage` says in `figure` what the attacker gains at most, `within noise` what of honest
    rounding hides the attack; `detected` needs none.
    """

    verdict: Verdict
    figure: str = ""

    @property
    def text(self) -> str:
        """Return it in words."""
        return f"{self.verdict}: {self.figure}" if self.figure else self.verdict


DETECTED = Expected("detected")


def bounded(figure: str) -> Expected:
    """Expect that an attack goes unseen and gains no more than `figure` says."""
    return Expected("bounded damage", figure)


def within_noise(class_name: str) -> Expected:
    """Expect that an attack lies within what honest executors of a numerics class differ by.

    Its detection rate is listed and nothing is demanded of it.
    """
    return Expected("within noise", f"honest rounding in {class_name} is as large")


@dataclass(frozen=True)
class Trial:
    """One chance of the checks to see an attack.

    `margin` is the largest statistic over its threshold, None where no statistic judged; `words`
    are the check's own.
    """

    detected: bool
    margin: float | None
    words: str


@dataclass(frozen=True)
class Outcome:
    """What came of an attack: its trials, and what it gained by name."""

    trials: tuple[Trial, ...]
    damage: Mapping[str, float] = field(default_factory=dict[str, float])


Place = TypeVar("Place", contravariant=True)


class Attack(ABC, Generic[Place]):
    """An attacker, carried out at a `Place`: the contract, programs or log that it attacks.

    `name` is what the command line takes, `family` groups the table, `what` is one sentence.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    what: ClassVar[str]
    expected: ClassVar[Expected] = DETECTED

    def obstacle(self, place: Place) -> str:
        """Say why there is nothing to attack here; empty where there is."""
        return ""

    def expected_at(self, place: Place) -> Expected:
        """Return what is expected of the checks here; a coarse numerics class expects less."""
        return self.expected

    @abstractmethod
    def carry_out(self, place: Place, *, rounds: int) -> Outcome:
        """Attack `rounds` times and return what the checks made of it."""


def weakest(trials: Iterable[Trial]) -> float | None:
    """Return the smallest margin of detected trials, the largest of undetected ones.

    That is the margin nearest to the other side; None where no statistic judged. A margin that is
    not a number counts as infinite: it never accepts.
    """
    trials = tuple(trials)
    sides = [[t for t in trials if not t.detected], [t for t in trials if t.detected]]
    for side, choose in zip(sides, (max, min), strict=True):
        known = [_number(t.margin) for t in side if t.margin is not None]
        if known:
            return choose(known)
    return None


def _number(margin: float) -> float:
    return math.inf if math.isnan(margin) else margin
