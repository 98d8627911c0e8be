"""A monitor: reads a whole log and signs what it holds under a contract, so that omissions show.

An inclusion proof cannot show that nothing was left out; a status does, for who trusts the monitor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope, sign
from attest.errors import FormatError, RefusedError
from attest.keys import PrivateKey, keyid
from attest.merkle import Frontier, leaf_hash
from attest.note import Note
from attest.one_story import OneStory, TwoStories
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Intent,
    KeyEvent,
    LogHead,
    Property,
    RunEntries,
    Segment,
    Statement,
    Status,
    Step,
    decode_statement,
    encode_statement,
)


class ReadableLog(Protocol):
    """Give what a monitor reads; `LocalLog` does."""

    def published(self) -> bytes:
        """Return the newest published checkpoint, its signatures verified."""
        ...

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the entries `start` to `stop` (excluded)."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """Hold a signed status, and whom of the runs in it the log shows to have told two stories."""

    envelope: Envelope
    accused: tuple[TwoStories, ...]


def status(log: ReadableLog, contract: str, key: PrivateKey, operator: str) -> Envelope:
    """Sign the status of a contract, as `watch` does, and return it alone."""
    return watch(log, contract, key, operator).envelope


def watch(log: ReadableLog, contract: str, key: PrivateKey, operator: str) -> Watched:
    """Sign the status of a contract (id, 64 hex digits) as of the newest published checkpoint.

    Of a run whose segments and steps cannot all be true, the segments are listed as conflicts: no
    proof of that run fits the status, and every other run's still does.

    Raises:
        RefusedError: (check `root`) if the entries do not lead to the checkpoint's root, (check
            `duplicate record`) if the log holds a record twice, or of signatures, if it holds
            segments that contradict each other and that nobody signed.
        FormatError: if an entry is no statement.
    """
    head = Checkpoint.from_text(Note.from_bytes(log.published()).text)
    survey, frontier = _Survey(contract), Frontier()
    for envelope in log.entries(0, head.size):
        survey.read(frontier.size, envelope)
        frontier.append(leaf_hash(envelope.to_bytes()))
    if (frontier.size, frontier.root()) != (head.size, head.root):
        raise RefusedError(
            f"entries of log {head.origin} do not lead to the root of its checkpoint of size "
            f"{head.size}: the log shows its readers something else than it signs",
            check="root",
        )
    accused = survey.story.check(log.entries, head.size)
    for found in accused:
        survey.accuse(found)
    statement = Status(
        contract=contract,
        monitor=operator,
        log=LogHead(head.origin, head.size, head.root.hex()),
        runs=survey.runs(),
        contract_intents=tuple(survey.contract_intents),
        key_events=survey.key_events(),
    )
    return Watched(sign(encode_statement(statement), [key]), accused)


@dataclass(slots=True)
class _RunIndices:
    genesis: int
    attempts: list[int] = field(default_factory=list[int])
    finals: list[int] = field(default_factory=list[int])
    intents: list[int] = field(default_factory=list[int])
    audits: list[int] = field(default_factory=list[int])
    properties: list[int] = field(default_factory=list[int])
    conflicts: list[int] = field(default_factory=list[int])


class _Survey:
    """Sort the entries of a log by run, for the runs under one contract."""

    def __init__(self, contract: str) -> None:
        self.contract_intents: list[int] = []
        self.story = OneStory(contract)
        self._contract = contract
        self._runs: dict[str, _RunIndices] = {}
        self._signers: set[str] = set()
        self._seen: set[bytes] = set()
        self._events: list[tuple[int, KeyEvent]] = []

    def read(self, index: int, envelope: Envelope) -> None:
        """Take account of the next entry."""
        record = envelope.record_hash()
        # A genesis told again would begin its run anew, and hide what was listed of it before.
        if record in self._seen:
            raise RefusedError(
                f"the log holds record {record.hex()} again at index {index}: a log takes a record "
                "once; ask its operator",
                check="duplicate record",
            )
        self._seen.add(record)
        statement = decode_statement(envelope.payload)
        self.story.read(index, envelope, statement)
        match statement:
            case Genesis(contract=self._contract):
                self._runs.setdefault(record.hex(), _RunIndices(index))
            case Intent(about="contract", target=self._contract):
                self.contract_intents.append(index)
            case KeyEvent() as event:
                self._events.append((index, event))
                return
            case _:
                pass
        runs = [run for run in self._runs_of(envelope, statement) if run in self._runs]
        for run in runs:
            self._list(self._runs[run], index, statement)
        if runs or _contract_of(statement) == self._contract:
            self._signers |= {signature.keyid for signature in envelope.signatures}

    def accuse(self, found: TwoStories) -> None:
        """List the segments of a run that told two stories among its conflicts."""
        run = self._runs[found.run]
        run.conflicts = sorted({*run.conflicts, *found.indices})

    def runs(self) -> tuple[RunEntries, ...]:
        """Return the indices by run, in the order of the runs' genesis."""
        return tuple(
            RunEntries(
                run=run,
                genesis=indices.genesis,
                attempts=tuple(indices.attempts),
                finals=tuple(indices.finals),
                intents=tuple(indices.intents),
                audits=tuple(indices.audits),
                properties=tuple(indices.properties),
                conflicts=tuple(indices.conflicts),
            )
            for run, indices in self._runs.items()
        )

    def key_events(self) -> tuple[int, ...]:
        """Return the events of keys that signed something under the contract, and of their line.

        A key may have got its place from another that never signed here: back to the first.
        """
        names, before = set(self._signers), -1
        while before != len(names):
            before = len(names)
            names |= {_key_of(e) for _, e in self._events if _successor_of(e) in names}
        return tuple(i for i, e in self._events if names & {_key_of(e), _successor_of(e)})

    def _list(self, run: _RunIndices, index: int, statement: Statement) -> None:
        match statement:
            case Attempt():
                run.attempts.append(index)
            case Final():
                run.finals.append(index)
            case Intent():
                run.intents.append(index)
            case Audit():
                run.audits.append(index)
            case Property():
                run.properties.append(index)
            case Conflict():
                run.conflicts.append(index)
            case _:
                return

    def _runs_of(self, envelope: Envelope, statement: Statement) -> Iterable[str]:
        """Return the runs that a record is about."""
        match statement:
            case Genesis():
                return [envelope.record_hash().hex()]
            case Step():
                return [statement.row.run]
            case Attempt() | Segment() | Final() | Audit() | Property():
                return [statement.run]
            case Intent(about="run", target=run):
                return [run]
            case Conflict(first=first, second=second):
                return self._runs_in_conflict(first, second)
            case _:
                return []

    def _runs_in_conflict(self, *envelopes: Envelope) -> set[str]:
        runs: set[str] = set()
        for envelope in envelopes:
            try:
                inside = decode_statement(envelope.payload)
            except FormatError:
                continue  # a reporter may show anything; what is no statement is about no run
            # Evidence inside evidence would be endless; a conflict is of a run's own records.
            if not isinstance(inside, Conflict):
                runs.update(self._runs_of(envelope, inside))
        return runs


def _key_of(event: KeyEvent) -> str:
    return keyid(bytes.fromhex(event.key))


def _successor_of(event: KeyEvent) -> str:
    return "" if event.successor is None else keyid(bytes.fromhex(event.successor))


def _contract_of(statement: Statement) -> str | None:
    match statement:
        case ContractStatement(contract=contract):
            return contract.id
        case Genesis(contract=named) | Status(contract=named):
            return named
        case Intent(about="contract", target=named):
            return named
        case _:
            return None
