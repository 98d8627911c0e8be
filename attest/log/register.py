"""What the log must remember of its entries to judge the next one: keys, runs, attempts.

Derived from the entries alone, in their order; a restart derives it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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
    Nonce,
    Property,
    Segment,
    Statement,
    Status,
    Step,
    cut_row,
    decode_statement,
)

# Who may sign what. Kinds that are not here are not admitted.
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
}


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
    """Hold a run: its contract and key, the largest attempt number, the final record if any."""

    contract: str
    public: bytes
    attempts: int = 0
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


@dataclass(slots=True)
class Register:
    """Hold everything that the admission rules ask about, but for single records."""

    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    publics: dict[str, bytes] = field(default_factory=dict[str, bytes])
    contracts: set[str] = field(default_factory=set[str])
    runs: dict[str, RunState] = field(default_factory=dict[str, RunState])
    attempts: dict[str, AttemptState] = field(default_factory=dict[str, AttemptState])

    def copy(self) -> Register:
        """Return a register that can go on alone; its values are shared and frozen."""
        return Register(
            dict(self.roles),
            dict(self.publics),
            set(self.contracts),
            dict(self.runs),
            dict(self.attempts),
        )

    def introduce(self, public: bytes) -> None:
        """Remember a public key by its keyid; what it may sign shows when it first does."""
        self.publics[keyid(public)] = public

    def observe(self, entry: LoggedRecord) -> None:
        """Take account of one more entry of the log."""
        role = SIGNING_ROLES[type(entry.statement)]
        for signer in entry.signers:
            self.roles[signer] = role
        match entry.statement:
            case Step() as step:
                line = self.attempts[step.attempt]
                self.attempts[step.attempt] = replace(
                    line, step=step.row.step, tail=entry.row_hash()
                )
            case Segment() as segment:
                line = self.attempts[segment.attempt]
                self.attempts[segment.attempt] = replace(
                    line, segment=segment.last, segment_tail=segment.last_row
                )
            case ContractStatement() as published:
                self.contracts.add(published.contract.id)
            case Genesis() as genesis:
                public = bytes.fromhex(genesis.run_key)
                self.introduce(public)
                self.runs[entry.record] = RunState(genesis.contract, public)
            case Attempt() as attempt:
                self._observe_attempt(entry.record, attempt)
            case Final() as final:
                self.runs[final.run] = replace(self.runs[final.run], final=entry.record)
            case _:
                return

    def reached(self, run: str) -> int:
        """Return the last step of a run that the log has a step or segment for."""
        lines = (line for line in self.attempts.values() if line.run == run)
        return max((max(line.step, line.segment) for line in lines), default=0)

    def _observe_attempt(self, record: str, attempt: Attempt) -> None:
        workers = _by_keyid(bytes.fromhex(key) for key in attempt.worker_keys)
        self.publics |= workers
        self.runs[attempt.run] = replace(self.runs[attempt.run], attempts=attempt.number)
        self.attempts[record] = AttemptState(
            run=attempt.run,
            resumed_from=attempt.resumed_from,
            workers=workers,
            start=attempt.step,
            step=attempt.step,
            segment=attempt.step,
        )


def _by_keyid(publics: Iterable[bytes]) -> dict[str, bytes]:
    return {keyid(public): public for public in publics}
