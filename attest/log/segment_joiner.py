"""Segments on their way to the log: only once every host has signed every row, and the same.

A segment carries the first worker's signature alone. What the other hosts say of its rows is in
their step files, and it is compared here, row by row, before anything is logged.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from attest.envelope import Envelope
from attest.errors import FormatError
from attest.keys import keyid
from attest.log.joiner import AttemptJoiner, HostFile, Taken
from attest.segment import RowMark, check_rows, mark_of, segment_file
from attest.statements import Attempt, Segment, decode_statement


class SegmentJoiner:
    """Pair the segments of one attempt with the rows that its hosts have signed.

    Rows after the last segment wait in the step files.

    Raises:
        InputError, FormatError, DivergenceError: from `take`, as `AttemptJoiner` does.
        RefusedError: (check `segment rows`) from `take`, if a segment commits other rows than all
            hosts signed.
    """

    def __init__(self, steps: Path, attempt: Attempt) -> None:
        self._rows = AttemptJoiner(steps, attempt)
        first = keyid(bytes.fromhex(attempt.worker_keys[0]))
        self._segments = HostFile(segment_file(steps, attempt.number), first)
        self._open: deque[RowMark] = deque()

    @property
    def signed(self) -> int:
        """Return how many rows the furthest host has signed, as far as they were read."""
        return self._rows.signed

    def take(self, limit: int) -> Taken:
        """Return the next segments, at most `limit`, whose rows all hosts have signed."""
        # The file of segments is read first: each rests on rows that were durable before it.
        self._segments.fill()
        records: list[Envelope] = []
        rows = 0
        while len(records) < limit:
            if count := self._completed():
                check_rows(_segment(self._segments.rows[0]), self._next(count))
                records.append(self._segments.rows.popleft())
                rows += count
            elif joined := self._rows.take(limit).records:
                # Also past the last segment: hosts that went apart are found now, not at its end.
                self._open.extend(mark_of(row) for row in joined)
            else:
                break
        return Taken(records, rows)

    def _completed(self) -> int:
        """Return how many rows the next segment commits, 0 while they are not all there."""
        if not self._segments.rows:
            return 0
        segment = _segment(self._segments.rows[0])
        count = segment.last - segment.first + 1
        return count if count <= len(self._open) else 0

    def _next(self, count: int) -> list[RowMark]:
        return [self._open.popleft() for _ in range(count)]


def _segment(envelope: Envelope) -> Segment:
    statement = decode_statement(envelope.payload)
    if not isinstance(statement, Segment):
        raise FormatError(f"segment file holds a record of kind {statement.KIND}", code="kind")
    return statement
