"""What the log must remember of its entries to judge the next one: keys, runs, attempts.

Derived from the entries alone, in their order; a restart derives it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from attest.envelope import Envelope, row_hash
from attest.keys import Role, keyid
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Held,
    Intent,
    KeyEvent,
    Nonce,
    Property,
    Segment,
    Statement,
    Status,
    Step,
    cut_row,
    decode_statement,
)

# Who may sign what: every kind has its role.
SIGNING_ROLES: Mapping[type[Statement], Role] = {
    ContractStatement: Role.AUTHOR,
    Genesis: Role.RUN,
    Attempt: Role.RUN,
    Final: Role.RUN,
    Step: Role.WORKER,
    Segment: Role.WORKER,
    Intent: Role.AUDITOR,
    Nonce: Role.AUDITOR,
    Audit: Role.AUDITOR,
    Property: Role.AUDITOR,
    Status: Role.MONITOR,
    Held: Role.HOLDER,
    Conflict: Role.REPORTER,
    KeyEvent: Role.OWNER,
}


def roles_shown(entry: LoggedRecord) -> dict[str, Role]:
    """Return the role that each key shows which signed a record or is named in a key event."""
    role = SIGNING_ROLES[type(entry.statement)]
    roles = dict.fromkeys(entry.signers, role)
    if isinstance(entry.statement, KeyEvent):
        event = entry.statement
        roles |= {_keyid(key): event.role for key in (event.key, event.successor) if key}
    return roles


def _keyid(public: str) -> str:
    return keyid(bytes.fromhex(public))


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """Hold one entry as the rules see it: record hash, payload, statement, signing keyids."""

    hash: bytes
    payload: bytes
    statement: Statement
    signers: tuple[str, ...]

    @classmethod
    def read(cls, envelope: Envelope) -> LoggedRecord:
        """Read the statement in an envelope.

        Raises:
            FormatError: if there is none.
        """
        signers = tuple(signature.keyid for signature in envelope.signatures)
        statement = decode_statement(envelope.payload)
        return cls(envelope.record_hash(), envelope.payload, statement, signers)

    @property
    def record(self) -> str:
        """Return the record hash as statements name it: 64 hex digits."""
        return self.hash.hex()

    def row_hash(self) -> str:
        """Return the hash of a step's row or of a segment's last row, in hex."""
        if isinstance(self.statement, Segment):
            return self.statement.last_row
        return row_hash(cut_row(self.payload)).hex()


@dataclass(frozen=True, slots=True)
class RunState:
    """Hold a run: its contract and key, the largest attempt number, the final record if any.

    `reached` is the last step that the log has a step or segment for.
    """

    contract: str
    public: bytes
    attempts: int = 0
    reached: int = 0
    final: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptState:
    """Hold an attempt: its workers (by rank), and where its line of steps and segments ends.

    `start` is the number of steps it resumes from; `step` and `segment` are the last step in the
    log by a step and by a segment record; `tail` and `segment_tail` are the hashes of these rows,
    None before the first record.
    """

    run: str
    resumed_from: str
    workers: Mapping[str, bytes]
    start: int
    step: int
    segment: int
    tail: str | None = None
    segment_tail: str | None = None


@dataclass(frozen=True, slots=True)
class KeyState:
    """Hold what a key's owner (a public key) says: the first index to sign at, and the end."""

    owner: str
    start: int
    end: int | None = None


_Value = TypeVar("_Value")
_ABSENT = object()


@dataclass(slots=True)
class Register:
    """Hold everything that the admission rules ask about, but for single records.

    What was written since `settle` can be undone: a commit may fail.
    """

    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    publics: dict[str, bytes] = field(default_factory=dict[str, bytes])
    contracts: dict[str, None] = field(default_factory=dict[str, None])
    runs: dict[str, RunState] = field(default_factory=dict[str, RunState])
    attempts: dict[str, AttemptState] = field(default_factory=dict[str, AttemptState])
    lives: dict[str, KeyState] = field(default_factory=dict[str, KeyState])
    _journal: list[tuple[dict[str, Any], str, Any]] = field(
        default_factory=list[tuple[dict[str, Any], str, Any]]
    )

    def settle(self) -> None:
        """Make everything written so far final."""
        self._journal.clear()

    def undo(self) -> None:
        """Take back everything written since the register was settled."""
        while self._journal:
            table, key, before = self._journal.pop()
            if before is _ABSENT:
                del table[key]
            else:
                table[key] = before

    def introduce(self, public: bytes) -> None:
        """Remember a public key by its keyid; what it may sign shows when it first does."""
        self._set(self.publics, keyid(public), public)

    def observe(self, entry: LoggedRecord) -> None:
        """Take account of one more entry of the log."""
        shown = roles_shown(entry)
        for signer in entry.signers:
            self._set(self.roles, signer, shown[signer])
        match entry.statement:
            case Step() as step:
                self._extend(step.attempt, step=step.row.step, tail=entry.row_hash())
            case Segment() as segment:
                self._extend(segment.attempt, segment=segment.last, segment_tail=segment.last_row)
            case ContractStatement() as published:
                self._set(self.contracts, published.contract.id, None)
            case Genesis() as genesis:
                public = bytes.fromhex(genesis.run_key)
                self.introduce(public)
                self._set(self.runs, entry.record, RunState(genesis.contract, public))
            case Attempt() as attempt:
                self._observe_attempt(entry.record, attempt)
            case Final() as final:
                run = replace(self.runs[final.run], final=entry.record)
                self._set(self.runs, final.run, run)
            case KeyEvent() as event:
                self._observe_key_event(event)
            case _:
                return

    def may_sign(self, signer: str, index: int) -> bool:
        """Tell whether a key's owner, if the log knows one, lets it sign the record at an index."""
        life = self.lives.get(signer)
        return life is None or life.start <= index and (life.end is None or index < life.end)

    def _observe_key_event(self, event: KeyEvent) -> None:
        """Obey an event of the owner whom the key itself has named, by signing its endorsement."""
        for public in event.signers:
            self.introduce(public)
        if event.ended is not None:
            name = _keyid(event.ended)
            life = self.lives.get(name)
            if life is not None and life.owner == event.owner:
                end = event.index if life.end is None else min(life.end, event.index)
                self._set(self.lives, name, KeyState(life.owner, life.start, end))
        # Who comes first is the owner: the key has said so, and cannot take it back.
        if event.newcomer is not None and _keyid(event.newcomer) not in self.lives:
            self._set(self.lives, _keyid(event.newcomer), KeyState(event.owner, event.index))

    def _extend(
        self,
        attempt: str,
        *,
        step: int | None = None,
        tail: str | None = None,
        segment: int | None = None,
        segment_tail: str | None = None,
    ) -> None:
        line = self.attempts[attempt]
        grown = AttemptState(
            line.run,
            line.resumed_from,
            line.workers,
            line.start,
            line.step if step is None else step,
            line.segment if segment is None else segment,
            line.tail if tail is None else tail,
            line.segment_tail if segment_tail is None else segment_tail,
        )
        self._set(self.attempts, attempt, grown)
        self._reach(line.run, max(grown.step, grown.segment))

    def _reach(self, run: str, step: int) -> None:
        state = self.runs[run]
        if step > state.reached:
            grown = RunState(state.contract, state.public, state.attempts, step, state.final)
            self._set(self.runs, run, grown)

    def _observe_attempt(self, record: str, attempt: Attempt) -> None:
        workers = {keyid(public): public for public in map(bytes.fromhex, attempt.worker_keys)}
        for name, public in workers.items():
            self._set(self.publics, name, public)
        state = replace(self.runs[attempt.run], attempts=attempt.number)
        self._set(self.runs, attempt.run, state)
        self._reach(attempt.run, attempt.step)
        line = AttemptState(
            run=attempt.run,
            resumed_from=attempt.resumed_from,
            workers=workers,
            start=attempt.step,
            step=attempt.step,
            segment=attempt.step,
        )
        self._set(self.attempts, record, line)

    def _set(self, table: dict[str, _Value], key: str, value: _Value) -> None:
        before = table.get(key, _ABSENT)
        if before is not value:
            self._journal.append((table, key, before))
            table[key] = value
