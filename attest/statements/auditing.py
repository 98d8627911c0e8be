"""What an auditor says: intent, nonce, audit, property."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from attest.canonical import parse_hex_float
from attest.errors import FormatError
from attest.schema import (
    Count,
    Elsewhere,
    Facts,
    Hex64,
    OptionalHexFloat,
    Ordinal,
    Text,
    built,
    listed,
    one_of,
)
from attest.statements.subject import RECORD, SHA256, STATE, Subject, SubjectDigest

_CHECKED = one_of("pass", "fail", "not checked")


@dataclass(frozen=True, slots=True)
class Intent:
    """Announce an audit of a run or contract, committing to a nonce (`attest.sample`)."""

    KIND: ClassVar[str] = "intent"

    about: Annotated[str, Elsewhere()]
    target: SubjectDigest
    auditor: Text
    commitment: Hex64

    def __post_init__(self) -> None:
        if self.about not in ("run", "contract"):
            raise FormatError("intent.subject: is neither run nor contract", code="field")

    def subjects(self) -> tuple[Subject, ...]:
        """Name the run (its genesis record) or the contract."""
        return (Subject(self.about, RECORD if self.about == "run" else SHA256, self.target),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take what the intent is about."""
        return {"about": subjects[0].name, "target": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Nonce:
    """Reveal the nonce (32 bytes, hex) that an intent committed to."""

    KIND: ClassVar[str] = "nonce"

    intent: SubjectDigest
    nonce: Hex64

    def subjects(self) -> tuple[Subject, ...]:
        """Name the intent's record."""
        return (Subject("record", RECORD, self.intent),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the intent's record hash."""
        return {"intent": subjects[0].digest}


@dataclass(frozen=True, slots=True)
class Source:
    """Name one nonce of the sample: the intent's record, its key, the revealed nonce."""

    intent: Hex64
    keyid: Hex64
    nonce: Hex64


@dataclass(frozen=True, slots=True)
class Counts:
    """Count the steps by result."""

    pass_: Count
    refuted: Count
    unattestable: Count
    withheld: Count


@dataclass(frozen=True, slots=True)
class Worst:
    """Give the largest statistic of each check over its tolerance; None where it did not run."""

    a: OptionalHexFloat
    a_row: OptionalHexFloat
    zeros: OptionalHexFloat
    a2: OptionalHexFloat
    b: OptionalHexFloat
    walk: OptionalHexFloat

    def given(self) -> tuple[str, ...]:
        """Return the statistics of the checks that ran."""
        values = (self.a, self.a_row, self.zeros, self.a2, self.b, self.walk)
        return tuple(value for value in values if value is not None)


@dataclass(frozen=True, slots=True)
class Audit:
    """Report a re-execution of sampled steps; `steps` were computed again, others withheld.

    `exact` compared bits alone; in a `bounded` audit some step was weighed within tolerances.
    """

    KIND: ClassVar[str] = "audit"

    final: SubjectDigest
    run: Hex64
    auditor: Text
    sample: Annotated[str, one_of("self", "intents", "chosen")]
    sources: Annotated[tuple[Source, ...], listed(built(Source))]
    k: Count
    steps: Count
    method: Annotated[str, one_of("exact", "bounded")]
    results_root: Hex64
    counts: Counts
    worst: Worst
    init: Annotated[str, _CHECKED]
    export: Annotated[str, _CHECKED]
    line: Annotated[str, _CHECKED]
    walk: Annotated[str, _CHECKED]
    drift: Annotated[str, one_of("pass", "fail", "no null known")]
    gradient_roots: Hex64
    environment: Facts

    def __post_init__(self) -> None:
        keys = [source.keyid for source in self.sources]
        if any(a >= b for a, b in zip(keys, keys[1:], strict=False)):
            raise FormatError("audit.sources: must be sorted by keyid, one per key", code="field")
        if (self.sample == "intents" and not keys) or (self.sample == "chosen" and keys):
            raise FormatError(f"audit.sources: do not fit sample {self.sample!r}", code="field")
        counts = self.counts
        if counts.pass_ + counts.refuted + counts.unattestable != self.steps:
            raise FormatError("audit.counts: do not add up to steps", code="field")
        _check_method(self)

    def subjects(self) -> tuple[Subject, ...]:
        """Name the audited final record."""
        return (Subject("record", RECORD, self.final),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the final record's hash."""
        return {"final": subjects[0].digest}


def _check_method(audit: Audit) -> None:
    """Check that statistics, walk and drift are those that the method can give."""
    if audit.method == "exact":
        if audit.worst.given():
            raise FormatError("audit.worst: an exact audit compares bits alone", code="field")
        if audit.walk == "fail" or audit.drift != "no null known":
            raise FormatError("audit.walk, drift: an exact audit has no residuals", code="field")
        return
    counts, worst = audit.counts, audit.worst
    if counts.pass_ and None in (worst.a, worst.b):
        raise FormatError("audit.worst: a bounded audit gives a and b", code="field")
    # Written so that a statistic that is no number contradicts too.
    within = all(parse_hex_float(value) <= 1.0 for value in worst.given())
    if not (within or counts.refuted or counts.unattestable or audit.walk == "fail"):
        raise FormatError("audit.worst: is above 1 and no step is refuted", code="field")
    if audit.drift != "no null known" and audit.steps < 2:
        raise FormatError("audit.drift: takes at least two steps", code="field")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Give a fraction as two integers, at most one."""

    numerator: Count
    denominator: Ordinal


@dataclass(frozen=True, slots=True)
class Property:
    """Report integer counts of a program over committed data, and the verdict on them.

    `auditor` is the operator: two who counted the same say two things, hence two records.
    """

    KIND: ClassVar[str] = "property"

    state_root: SubjectDigest
    run: Hex64
    final: Hex64
    auditor: Text
    name: Text
    program: Hex64
    data_root: Hex64
    correct: Count
    total: Ordinal
    threshold: Threshold
    margin: Count
    verdict: Annotated[str, one_of("met", "not met", "undecided")]

    def __post_init__(self) -> None:
        if self.correct > self.total:
            raise FormatError("property.correct: is more than total", code="field")
        if self.threshold.numerator > self.threshold.denominator:
            raise FormatError("property.threshold: is above one", code="field")

    def subjects(self) -> tuple[Subject, ...]:
        """Name the final state."""
        return (Subject("state", STATE, self.state_root),)

    @staticmethod
    def from_subjects(subjects: tuple[Subject, ...]) -> dict[str, Any]:
        """Take the final state's digest."""
        return {"state_root": subjects[0].digest}
