"""Whether the rows and segments that a log holds can all be true, for whoever reads the whole log.

The log refuses what does not follow; a log that let it in is found out here, with the evidence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from attest.envelope import Envelope
from attest.equivocation import check_row_evidence, encode_row_evidence
from attest.errors import EquivocationError
from attest.segment import Contradiction, RowMark, contradiction, mark_of
from attest.statements import Attempt, Genesis, Segment, Statement, Step, decode_statement

__all__ = ["Entries", "OneStory"]

# Yields the entries `start` to `stop` (excluded) of a log.
Entries = Callable[[int, int], Iterator[Envelope]]


@dataclass(slots=True)
class _Told:
    """Collect where one attempt's records lie; `rows` are read again, where segments need them."""

    run: str
    index: int
    has_rows: bool = False
    segments: dict[int, Segment] = field(default_factory=dict[int, Segment])
    rows: dict[int, RowMark] = field(default_factory=dict[int, RowMark])
    row_indices: dict[int, int] = field(default_factory=dict[int, int])


class OneStory:
    """Follow the attempts of a log's runs; segments are kept, rows only counted."""

    def __init__(self) -> None:
        self._genesis: dict[str, int] = {}
        self._told: dict[str, _Told] = {}

    def read(self, index: int, envelope: Envelope, statement: Statement) -> None:
        """Take account of the next entry."""
        match statement:
            case Genesis():
                self._genesis[envelope.record_hash().hex()] = index
            case Attempt(run=run) if run in self._genesis:
                self._told[envelope.record_hash().hex()] = _Told(run, index)
            case Step(attempt=attempt) if attempt in self._told:
                self._told[attempt].has_rows = True
            case Segment(attempt=attempt) if attempt in self._told:
                self._told[attempt].segments[index] = statement
            case _:
                return

    def check(self, entries: Entries, size: int) -> None:
        """Compare segments with each other and with the rows beside them.

        Raises:
            EquivocationError: if an attempt's key signed what cannot all be true; the evidence is
                the file's bytes (`equivocation.check_row_evidence`).
        """
        doubted = {name: told for name, told in self._told.items() if told.segments}
        if any(told.has_rows for told in doubted.values()):
            _read_rows(doubted, entries, size)
        for name, told in doubted.items():
            found = contradiction(told.rows, list(told.segments.values()))
            if found is None:
                continue
            evidence = self._evidence(told, found, entries)
            # A log may hold what nobody signed: that accuses the log, not the run.
            check_row_evidence(evidence, told.run)
            raise EquivocationError(
                f"attempt {name[:16]} of run {told.run[:16]} tells two stories: {found.words}",
                evidence=evidence,
            )

    def _evidence(self, told: _Told, found: Contradiction, entries: Entries) -> bytes:
        segments = [index for index, segment in told.segments.items() if segment in found.segments]
        rows = [told.row_indices[step] for step in found.steps]
        genesis, attempt, *records = (
            next(entries(index, index + 1))
            for index in (self._genesis[told.run], told.index, *segments, *rows)
        )
        return encode_row_evidence(genesis, attempt, records)


def _read_rows(doubted: dict[str, _Told], entries: Entries, size: int) -> None:
    for index, envelope in enumerate(entries(0, size)):
        statement = decode_statement(envelope.payload)
        told = doubted.get(statement.attempt) if isinstance(statement, Step) else None
        if told is not None:
            mark = mark_of(envelope)
            told.rows[mark.step] = mark
            told.row_indices[mark.step] = index
