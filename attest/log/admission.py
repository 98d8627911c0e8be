"""What the log admits: form, signatures and order. It never executes anything.

Checks come in the order of their cost: size, shape, who may sign (from memory), signatures; only
then is the database asked, and last whether the record may come at this place. A refusal has a
code of the table below. A client that trusts no log checks all of this again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from attest.envelope import Envelope, verify_signatures
from attest.errors import FormatError, RefusedError
from attest.keys import check_public_key, keyid
from attest.log.placement import Place, misplaced
from attest.log.register import SIGNING_ROLES, LoggedRecord, Register
from attest.statements import Attempt, Final, Genesis, Segment, Step

REFUSALS: Mapping[str, str] = {
    "size": "is larger than a log entry may be",
    "statement": "is no statement of this protocol",
    "kind": "is of a kind that this log does not take",
    "key": "comes with a public key that is malformed or of small order",
    "key-unknown": "is signed by a key that this log does not know; hand in its public key too",
    "key-role": "uses a key that has another role in this log; one key, one role",
    "signers": "is not signed by exactly the keys that its kind demands",
    "signature": "has a signature that does not verify",
    "signer-differs": "is in the log already, signed by another key",
    "contract-unknown": "names a contract that is not in the log; log the contract first",
    "run-unknown": "names a run whose genesis is not in the log",
    "run-closed": "belongs to a run whose final record is in the log",
    "attempt-unknown": "names an attempt that is not in the log",
    "attempt-number": "does not count on from the run's attempts so far",
    "attempt-origin": "resumes from what is no record of this run at this step in the log",
    "step-run": "names another run than its attempt",
    "step-conflict": "is a second, different record of a step that its attempt has logged",
    "step-order": "is not the step that follows in its attempt",
    "step-prev": "has a row whose prev is not the hash of the row that it follows",
    "segment-conflict": "is a second, different record of steps that its attempt has logged",
    "segment-order": "does not begin with the step after the last segment of its attempt",
    "segment-prev": "has a prev that is not the hash of the row that it follows",
    "final-early": "closes a run at a step that the log has no record of; ship the steps first",
    "final-conflict": "is a second, different final record of its run",
    "intent-unknown": "names an intent that is not in the log, or another key's",
    "nonce-commitment": "reveals another nonce than its intent committed to",
    "nonce-early": "reveals a nonce before the run's final record is in the log",
    "final-unknown": "names a final record that is not the run's in the log",
    "status-head": "is about another log, or about more entries than this log has",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold a record of good form that exactly the right keys have signed; its place is open."""

    envelope: Envelope
    leaf: bytes
    logged: LoggedRecord


@dataclass(frozen=True, slots=True)
class Admission:
    """Judge records one by one against a register, which grows with each that is taken."""

    place: Place

    def introduce(self, publics: Iterable[bytes]) -> None:
        """Make public keys known, for records whose statement does not carry them."""
        for public in publics:
            try:
                self.place.register.introduce(check_public_key(public))
            except FormatError as error:
                raise RefusedError(f"log refuses a public key: {error}", check="key") from None

    def inspect(self, envelope: Envelope) -> Candidate:
        """Check size, shape, signers and signatures; ask no database.

        Raises:
            RefusedError: whose `check` is the code.
        """
        name = f"record {envelope.record_hash().hex()[:16]}"
        try:
            leaf = envelope.to_bytes()
        except FormatError as error:
            refuse("size", name, str(error))
        try:
            candidate = Candidate(envelope, leaf, LoggedRecord.read(envelope))
        except FormatError as error:
            refuse("statement", name, str(error))
        self._check_signatures(candidate)
        return candidate

    def check_same(self, candidate: Candidate, logged: LoggedRecord) -> None:
        """Check that a record which is in the log already came from the same keys."""
        if candidate.logged.signers != logged.signers:
            refuse("signer-differs", _name(candidate.logged))

    def take(self, candidate: Candidate) -> None:
        """Check that the record may come next, and count it in.

        Raises:
            RefusedError: whose `check` is the code.
        """
        entry = candidate.logged
        if code := misplaced(self.place, entry):
            refuse(code, _name(entry))
        self.place.register.observe(entry)

    def _check_signatures(self, candidate: Candidate) -> None:
        entry = candidate.logged
        if type(entry.statement) not in SIGNING_ROLES:
            refuse("kind", _name(entry))
        expected = _expected_keys(self.place.register, entry)
        if tuple(sorted(expected)) != entry.signers:
            refuse("signers", _name(entry))
        role = SIGNING_ROLES[type(entry.statement)]
        if any(self.place.register.roles.get(signer, role) is not role for signer in entry.signers):
            refuse("key-role", _name(entry))
        try:
            verify_signatures(candidate.envelope, expected)
        except RefusedError as error:
            refuse("signature", _name(entry), str(error))


def refuse(code: str, name: str, detail: str = "") -> NoReturn:
    """Raise the refusal of this code."""
    more = f": {detail}" if detail else ""
    raise RefusedError(f"log refuses {name} [{code}]: it {REFUSALS[code]}{more}", check=code)


def _name(entry: LoggedRecord) -> str:
    match entry.statement:
        case Step(row=row):
            where = f" (step {row.step})"
        case Segment(first=first, last=last):
            where = f" (steps {first} to {last})"
        case _:
            where = ""
    return f"{entry.statement.KIND} {entry.record[:16]}{where}"


def _expected_keys(register: Register, entry: LoggedRecord) -> Mapping[str, bytes]:
    """Return the keys that must have signed, no more and no fewer."""
    match entry.statement:
        case Step(attempt=attempt) | Segment(attempt=attempt) as statement:
            line = register.attempts.get(attempt)
            if line is None:
                refuse("attempt-unknown", _name(entry))
            if isinstance(statement, Step):
                return line.workers
            first = next(iter(line.workers))
            return {first: line.workers[first]}
        case Genesis(run_key=text):
            public = bytes.fromhex(text)
            return {keyid(public): public}
        case Attempt(run=run) | Final(run=run):
            state = register.runs.get(run)
            if state is None:
                refuse("run-unknown", _name(entry))
            return {keyid(state.public): state.public}
        case _:
            return _declared_key(register, entry)


def _declared_key(register: Register, entry: LoggedRecord) -> Mapping[str, bytes]:
    """Return the one key of a kind whose signer names himself: author, auditor, monitor."""
    public = register.publics.get(entry.signers[0])
    if public is None:
        refuse("key-unknown", _name(entry))
    return {entry.signers[0]: public}
