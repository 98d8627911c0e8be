"""Puts contradictions that a served log has refused into the log, both records in one statement.

The refused record would be nowhere else, and an inclusion proof shows no absence: so the log says
itself, by a key of its own, that the run's keys signed two stories. One of each run is enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from attest.envelope import Envelope, sign
from attest.errors import FormatError, RefusedError
from attest.keys import PrivateKey
from attest.log.admission import Candidate
from attest.log.published_log import PublishedLog
from attest.log.run_index import RunIndex, RunPlace
from attest.log.submission import Submission
from attest.statements import (
    Conflict,
    Final,
    Segment,
    Statement,
    Step,
    decode_statement,
    encode_statement,
)

CONFLICTS = frozenset({"step-conflict", "segment-conflict", "final-conflict"})
_MOST_WAITING = 1024


@dataclass(frozen=True, slots=True)
class _Seen:
    """Hold a refused record; what it contradicts lies among the first `size` entries."""

    candidate: Candidate
    size: int


class Reporter:
    """Remember refused records, and report each beside the one that it contradicts.

    `submit` takes the report; `find` gives the index of a record by its hash.
    """

    def __init__(
        self,
        key: PrivateKey,
        published: PublishedLog,
        find: Callable[[bytes], int | None],
        submit: Callable[[Submission], object],
    ) -> None:
        self._key = key
        self._published = published
        self._find = find
        self._submit = submit
        self._waiting: deque[_Seen] = deque(maxlen=_MOST_WAITING)
        self._reported: set[str] = set()

    def saw(self, candidate: Candidate, size: int) -> None:
        """Take note of a record that exactly the right keys have signed, and that was refused."""
        self._waiting.append(_Seen(candidate, size))

    def report(self, index: RunIndex) -> None:
        """Report what contradicts entries that the index knows."""
        for _ in range(len(self._waiting)):
            seen = self._waiting.popleft()
            if seen.size > index.size:
                self._waiting.append(seen)
                continue
            place = index.runs.get(_run(seen.candidate.logged.statement))
            if place is None or place.conflicts or place.run in self._reported:
                continue
            first = self._contradicted(place, seen.candidate)
            if first is not None and self._said(first, seen.candidate.envelope):
                self._reported.add(place.run)

    def _said(self, first: Envelope, second: Envelope) -> bool:
        pair = sorted((first, second), key=lambda envelope: envelope.record_hash())
        try:
            statement = encode_statement(Conflict(*pair))
            candidate = Candidate.of(sign(statement, [self._key]))
        except (FormatError, RefusedError):
            return False  # together the two are larger than an entry: a monitor has to keep them
        self._submit(Submission((candidate,), (self._key.public,)))
        return True

    def _contradicted(self, place: RunPlace, candidate: Candidate) -> Envelope | None:
        statement = candidate.logged.statement
        if isinstance(statement, Final):
            return None if place.final is None else self._published.entry(place.final)
        if not isinstance(statement, Step | Segment):
            return None
        rows = self._rows_of(place, statement.attempt)
        step = statement.row.step if isinstance(statement, Step) else statement.last
        # The first row or segment that ends at this step or behind it: rows come in order.
        low, high = 0, len(rows)
        while low < high:
            middle = (low + high) // 2
            if _end(self._published.entry(rows[middle])) < step:
                low = middle + 1
            else:
                high = middle
        for at in range(low, len(rows)):
            found = self._published.entry(rows[at])
            told = decode_statement(found.payload)
            if isinstance(told, Step | Segment) and told.attempt == statement.attempt:
                return found
        return None

    def _rows_of(self, place: RunPlace, attempt: str) -> list[int]:
        """Return the indices of the rows between an attempt and the one after it."""
        own = self._find(bytes.fromhex(attempt))
        if own is None:
            return []
        after = min((index for index in place.attempts if index > own), default=None)
        return [
            index
            for first, stop in place.spans
            for index in range(first, stop)
            if index > own and (after is None or index < after)
        ]


def _run(statement: Statement) -> str:
    match statement:
        case Step(row=row):
            return row.run
        case Segment(run=run) | Final(run=run):
            return run
        case _:
            return ""


def _end(envelope: Envelope) -> int:
    match decode_statement(envelope.payload):
        case Step(row=row):
            return row.step
        case Segment(last=last):
            return last
        case _:
            return 0
