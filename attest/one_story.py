"""Whether the rows and segments that a log holds can all be true, for whoever reads the whole log.

The log refuses what does not follow; what it let in, or could not see, is found out here, with the
evidence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from attest.envelope import Envelope
from attest.equivocation import encode_row_evidence, row_equivocation
from attest.errors import EquivocationError
from attest.segment import Contradiction, RowMark, contradiction, mark_of
from attest.statements import Attempt, Genesis, Segment, Statement, Step, decode_statement

__all__ = ["Entries", "OneStory", "TwoStories"]

# Yields the entries `start` to `stop` (excluded) of a log.
Entries = Callable[[int, int], Iterator[Envelope]]


@dataclass(frozen=True, slots=True)
class TwoStories:
    """Accuse a run: `indices` are its segments that cannot be true, `error` has the evidence."""

    run: str
    indices: tuple[int, ...]
    error: EquivocationError


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
    """Follow the attempts of the runs under a contract; segments are kept, rows only counted."""

    def __init__(self, contract: str) -> None:
        self._contract = contract
        self._genesis: dict[str, int] = {}
        self._told: dict[str, _Told] = {}

    def read(self, index: int, envelope: Envelope, statement: Statement) -> None:
        """Take account of the next entry."""
        match statement:
            case Genesis(contract=self._contract):
                self._genesis[envelope.record_hash().hex()] = index
            case Attempt(run=run) if run in self._genesis:
                self._told[envelope.record_hash().hex()] = _Told(run, index)
            case Step(attempt=attempt) if attempt in self._told:
                self._told[attempt].has_rows = True
            case Segment(attempt=attempt) if attempt in self._told:
                self._told[attempt].segments[index] = statement
            case _:
                return

    def check(self, entries: Entries, size: int) -> tuple[TwoStories, ...]:
        """Compare segments with each other and with the rows beside them; return who lied.

        An error's evidence is the file's bytes (`equivocation.check_row_evidence`).

        Raises:
            RefusedError: if nobody signed what contradicts itself: that accuses the log.
        """
        doubted = {name: told for name, told in self._told.items() if told.segments}
        if any(told.has_rows for told in doubted.values()):
            _read_rows(doubted, entries, size)
        accused: list[TwoStories] = []
        for name, told in doubted.items():
            found = contradiction(told.rows, list(told.segments.values()))
            if found is not None:
                accused.append(self._accused(name, told, found, entries))
        return tuple(accused)

    def _accused(
        self, name: str, told: _Told, found: Contradiction, entries: Entries
    ) -> TwoStories:
        segments = [index for index, segment in told.segments.items() if segment in found.segments]
        rows = [told.row_indices[step] for step in found.steps]
        genesis, attempt, *records = (
            next(entries(index, index + 1))
            for index in (self._genesis[told.run], told.index, *segments, *rows)
        )
        row_equivocation(genesis, attempt, records, told.run)
        words = f"attempt {name[:16]} of run {told.run[:16]} tells two stories: {found.words}"
        evidence = encode_row_evidence(genesis, attempt, records)
        return TwoStories(told.run, tuple(segments), EquivocationError(words, evidence=evidence))


def _read_rows(doubted: dict[str, _Told], entries: Entries, size: int) -> None:
    for index, envelope in enumerate(entries(0, size)):
        statement = decode_statement(envelope.payload)
        told = doubted.get(statement.attempt) if isinstance(statement, Step) else None
        if told is not None:
            mark = mark_of(envelope)
            told.rows[mark.step] = mark
            told.row_indices[mark.step] = index
