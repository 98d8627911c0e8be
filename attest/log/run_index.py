"""Where the records of each run lie in a log: what makes one run's proof no longer than that run.

Derived from the entries alone, in their order; whoever starts anew reads them again. In memory it
takes some words for each record that is no row, and two for each stretch of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from attest.envelope import Envelope
from attest.run_of import run_of
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Intent,
    Nonce,
    Property,
    Segment,
    Statement,
    Status,
    Step,
    decode_statement,
    predicate_type,
)

# Most of a log is rows. Their run is read off the payload: its only field of this name.
_TYPE = b'"predicateType":'
_ROWS = tuple(_TYPE + f'"{predicate_type(kind)}"'.encode() for kind in (Step, Segment))
_RUN = re.compile(rb'"run":"([0-9a-f]{64})"')


@dataclass(slots=True)
class RunPlace:
    """Hold a run's place: index of genesis, attempts and final, number of rows and conflicts.

    `spans` are stretches [first, stop) of its rows, `notes` the indices of all else about it.
    """

    run: str
    contract: str
    genesis: int
    rows: int = 0
    conflicts: int = 0
    final: int | None = None
    attempts: list[int] = field(default_factory=list[int])
    spans: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    notes: list[int] = field(default_factory=list[int])

    def add_row(self, index: int) -> None:
        """Count in one more step or segment."""
        self.rows += 1
        if self.spans and self.spans[-1][1] == index:
            self.spans[-1] = (self.spans[-1][0], index + 1)
        else:
            self.spans.append((index, index + 1))


@dataclass(slots=True)
class RunIndex:
    """Sort the first `size` entries of a log by run and by contract.

    `named_sizes` are the log sizes that statuses among them speak of.
    """

    size: int = 0
    named_sizes: list[int] = field(default_factory=list[int])
    runs: dict[str, RunPlace] = field(default_factory=dict[str, RunPlace])
    _about_contract: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    _intents: dict[str, str] = field(default_factory=dict[str, str])

    def extend(self, envelopes: Iterable[Envelope]) -> None:
        """Take account of the entries that follow."""
        for envelope in envelopes:
            self._add(self.size, envelope)
            self.size += 1

    def notes(self, run: str) -> list[int]:
        """Return the indices of what a proof of this run may hold: all but its rows, in order."""
        place = self.runs[run]
        return sorted({*place.notes, *self._about_contract.get(place.contract, ())})

    def records(self, run: str) -> Iterator[int]:
        """Yield the indices of all that concerns this run, rows included, in order."""
        notes = iter([*self.notes(run), self.size])
        next_note = next(notes)
        for first, stop in [*self.runs[run].spans, (self.size, self.size)]:
            while next_note < first:
                yield next_note
                next_note = next(notes)
            yield from range(first, stop)

    def after(self, index: int) -> Iterator[RunPlace]:
        """Yield the runs whose genesis lies behind an index, in the order of the log."""
        return (place for place in self.runs.values() if place.genesis > index)

    def _add(self, index: int, envelope: Envelope) -> None:
        payload = envelope.payload
        if payload.startswith(_ROWS, payload.rfind(_TYPE)):
            match = _RUN.search(payload)
            if match and (place := self.runs.get(match[1].decode())):
                place.add_row(index)
            return
        statement = decode_statement(payload)
        match statement:
            case Genesis(contract=contract):
                run = envelope.record_hash().hex()
                self.runs[run] = RunPlace(run, contract, index, notes=[index])
                return
            case ContractStatement(contract=contract):
                self._note_contract(contract.id, index)
            case Status(contract=contract, log=log):
                self._note_contract(contract, index)
                self.named_sizes.append(log.size)
            case Intent(about="contract", target=contract):
                self._note_contract(contract, index)
            case _:
                pass
        record = envelope.record_hash().hex()
        for run in self._runs_of(record, statement):
            if place := self.runs.get(run):
                _note(place, index, statement)

    def _note_contract(self, contract: str, index: int) -> None:
        self._about_contract.setdefault(contract, []).append(index)

    def _runs_of(self, record: str, statement: Statement) -> Iterable[str]:
        match statement:
            case Attempt(run=run) | Final(run=run) | Audit(run=run) | Property(run=run):
                return (run,)
            case Intent(about="run", target=run):
                self._intents[record] = run
                return (run,)
            case Nonce(intent=intent):
                return (self._intents.get(intent, ""),)
            case Conflict(first=first, second=second):
                return {run for run in (run_of(first), run_of(second)) if run}
            case _:
                return ()


def _note(place: RunPlace, index: int, statement: Statement) -> None:
    place.notes.append(index)
    match statement:
        case Attempt():
            place.attempts.append(index)
        case Final():
            place.final = index if place.final is None else place.final
        case Conflict():
            place.conflicts += 1
        case _:
            return
