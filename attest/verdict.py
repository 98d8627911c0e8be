"""The answer to a relying party: how much was checked, by whom, and what was not."""

import time
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from attest.level import Level
from attest.properties import PropertyReading

__all__ = ["AuditLine", "Coverage", "Verdict", "percent"]

_THREE_DIGITS = Context(prec=3, rounding=ROUND_CEILING)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Say what one audit by a key of the policy covers; `shortfall` says why it is no sample.

    `passed` of `drawn` sampled steps surely passed. An empty `shortfall` makes the run sampled.
    """

    operator: str
    index: int
    passed: int
    drawn: int
    unattestable: int
    withheld: int
    init: str
    export: str
    line: str
    walk: str
    drift: str
    shortfall: str

    def text(self) -> str:
        """Return the line that is printed."""
        names = ("init", "export", "line", "walk", "drift")
        checked = ", ".join(f"{name} {getattr(self, name)}" for name in names)
        words = f"{self.operator}: {self.passed:,} of {self.drawn:,} steps passed; {checked}"
        for count, what in ((self.unattestable, "unattestable"), (self.withheld, "withheld")):
            words += f"; {count:,} {what}, not covered" if count else ""
        return words + (f" ({self.shortfall}: no sample)" if self.shortfall else "")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Hold both probabilities of a lie passing, from the best sample that counts.

    `miss`: a run of which the policy's fraction of steps is bad passes the sample, times `tries`
    (0: not counted), at most 1. `escape`: one single bad step is not in the sample. Where `lost`
    drawn steps did not pass, the sample is none and no probability is printed.
    """

    steps: int
    passed: int
    bad_fraction: float
    tries: int
    miss: float
    escape: float
    lost: int = 0

    def text(self) -> tuple[str, str]:
        """Return the two lines that are always printed together."""
        if self.lost:
            # Which steps these are was no chance: the formula for a random sample does not hold.
            noun = "step" if self.lost == 1 else "steps"
            return (
                f"{self.passed:,} of {self.steps:,} steps count as checked",
                f"no probability is stated: {self.lost:,} drawn {noun} did not pass",
            )
        if self.tries:
            tries = f"{self.tries:,} {'try' if self.tries == 1 else 'tries'}"
        else:
            tries = "tries not counted"
        return (
            f"{percent(self.bad_fraction)} bad steps escape with p = {percent(self.miss)} "
            f"({self.passed:,} of {self.steps:,} steps, {tries})",
            f"one single bad step escapes with p = {percent(self.escape)}",
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold what the client found; `text` prints it, `exit_code` says whether it is enough.

    `own` marks a policy in which every role is the trainer's. `doubts` are things not checked, in
    words; `unmet` what the policy requires and did not get.
    """

    level: Level
    own: bool
    run: str
    contract: str
    trainer: str
    trainer_named: bool
    steps: int
    attempts: int
    runs: int
    finals: int
    origin: str
    log_size: int
    witnesses: tuple[str, ...]
    witness_time: int | None
    auditors: tuple[str, ...]
    audits: tuple[AuditLine, ...]
    coverage: Coverage
    properties: tuple[PropertyReading, ...]
    artifact: str
    checked: tuple[str, ...]
    doubts: tuple[str, ...]
    required: str
    unmet: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 if the policy's requirement is met, else 1."""
        return 1 if self.unmet else 0

    def headline(self) -> str:
        """Return the first line: the level, and what it rests on."""
        if self.own:
            return "logged (self): integrity, not honesty"
        if self.level is Level.LOGGED:
            return "logged: integrity, not honesty"
        if self.level is Level.WITNESSED:
            return "witnessed: order and integrity, no step counts as checked"
        names = ", ".join(self.auditors)
        if self.level is Level.SAMPLED:
            return f"sampled by {names}: {self.coverage.passed:,} of {self.steps:,} steps"
        return f"reproduced by {names}: all {self.steps:,} steps"

    def text(self) -> str:
        """Return the whole answer, a fact a line."""
        lines = [self.headline(), *(_row(label, words) for label, words in self._facts())]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, object]:
        """Return the answer for machines; field names are stable."""
        return {
            "level": self.level.text,
            "self": self.own,
            "headline": self.headline(),
            "run": self.run,
            "contract": self.contract,
            "trainer": {"operator": self.trainer, "named": self.trainer_named},
            "steps": self.steps,
            "attempts": self.attempts,
            "runs": self.runs,
            "finals": self.finals,
            "log": {"origin": self.origin, "size": self.log_size},
            "witnesses": list(self.witnesses),
            "witnessTime": self.witness_time,
            "audits": [_fields(line) for line in self.audits],
            "coverage": _coverage(self.coverage),
            "properties": [_fields(reading) for reading in self.properties],
            "artifact": self.artifact,
            "checked": list(self.checked),
            "doubts": list(self.doubts),
            "required": self.required,
            "unmet": list(self.unmet),
            "exitCode": self.exit_code,
        }

    def _facts(self) -> list[tuple[str, str]]:
        word = "named by the policy" if self.trainer_named else "by its own word"
        cosigned = ", ".join(self.witnesses) or "nobody but the trainer"
        when = f" at {_utc(self.witness_time)}" if self.witness_time is not None else ""
        under = f"; {_count(self.runs, 'run')}, {_count(self.finals, 'final')} under the contract"
        facts = [
            ("run", self.run),
            ("contract", self.contract),
            ("trainer", f"{self.trainer} ({word})"),
            ("log", f"{self.origin}, {self.log_size:,} entries, cosigned by {cosigned}{when}"),
            (
                "steps",
                f"{self.steps:,} in {_count(self.attempts, 'attempt')}"
                + (under if self.runs else ""),
            ),
        ]
        facts += [("audit", line.text()) for line in self.audits]
        facts += zip(("coverage", ""), self.coverage.text(), strict=True)
        facts += [("property", _property(reading)) for reading in self.properties]
        facts += [("artifact", self.artifact)] if self.artifact else []
        facts += [("checked", words) for words in self.checked]
        facts += [("doubt", words) for words in self.doubts]
        missing = "".join(f"; {words}" for words in self.unmet)
        facts += [("required", f"{self.required}: {'not met' if self.unmet else 'met'}{missing}")]
        return facts


def percent(p: float) -> str:
    """Write a probability in per cent, three digits, rounded up: never less than it is."""
    value = (Decimal(repr(p)) * 100).normalize(_THREE_DIGITS)
    return f"{value:f} %" if value == 0 or value >= Decimal("0.0001") else f"{value:e} %"


def _coverage(coverage: Coverage) -> dict[str, object]:
    return _fields(coverage) | ({"miss": None, "escape": None} if coverage.lost else {})


def _property(reading: PropertyReading) -> str:
    words = f"{reading.name}: {reading.state}"
    if reading.state == "validated":
        of = f"{len(reading.validators)} of {reading.auditors} operators"
        words += f" ({of}: {', '.join(reading.validators)})"
    if reading.total:
        words += f"; {reading.correct:,} of {reading.total:,} correct"
    return words + f"; at least {reading.numerator}/{reading.denominator} promised"


def _row(label: str, words: str) -> str:
    return f"{label:<10}{words}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _utc(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds} s after 1970"


def _fields(record: object) -> dict[str, object]:
    names: tuple[str, ...] = type(record).__slots__  # pyright: ignore[reportAttributeAccessIssue]
    return {name: getattr(record, name) for name in names}
