"""What the log admits: form, signatures and order. It never executes anything.

Checks come in the order of their cost: size, shape, who may sign (from memory), signatures; only
then is the database asked, and last whether the record may come at this place. A refusal has a
code of the table below. A client that trusts no log checks all of this again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attest.envelope import MAX_ENVELOPE_BYTES, Envelope, verify_signatures
from attest.errors import FormatError, RefusedError
from attest.keys import check_public_key, keyid
from attest.log.placement import Place, misplaced
from attest.log.register import LoggedRecord, roles_shown
from attest.rejections import RECORDS, reject
from attest.statements import Attempt, Final, Genesis, KeyEvent, Segment, Step

# What a record is refused for, code by code, in the order of the checks.
REFUSALS: Mapping[str, str] = {code: said.words for code, said in RECORDS.items()}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold a record of good form; who signed it, and whether it may come now, is open.

    Making one asks no register and no database, so a service does it before it queues anything.
    """

    envelope: Envelope
    leaf: bytes
    logged: LoggedRecord

    @classmethod
    def of(cls, envelope: Envelope) -> Candidate:
        """Check size and shape of a record.

        Raises:
            RejectedError: whose `check` is the code.
        """
        name = f"record {envelope.record_hash().hex()[:16]}"
        try:
            leaf = envelope.to_bytes()
        except FormatError as error:
            reject("size", name, str(error), rule=error.code)
        try:
            return cls(envelope, leaf, LoggedRecord.read(envelope))
        except FormatError as error:
            reject("statement", name, str(error), rule=error.code)

    @classmethod
    def read(cls, leaf: bytes) -> Candidate:
        """Check size and shape of a record as it comes over a wire: the leaf's own bytes.

        Raises:
            RejectedError: whose `check` is the code, and `rule` what the light client says.
        """
        if len(leaf) > MAX_ENVELOPE_BYTES:
            words = f"{len(leaf)} bytes, more than {MAX_ENVELOPE_BYTES}"
            reject("size", "a record", words, rule="too large")
        try:
            # Whatever it reads it would write again byte for byte: there is one spelling.
            envelope = Envelope.from_bytes(leaf)
            return cls(envelope, leaf, LoggedRecord.read(envelope))
        except FormatError as error:
            reject("statement", "a record", str(error), rule=error.code)


@dataclass(frozen=True, slots=True)
class Admission:
    """Judge records one by one against a register, which grows with each that is taken.

    `introduced` are public keys by keyid that came along; the register learns those that sign.
    """

    place: Place
    introduced: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def introduce(self, publics: Iterable[bytes]) -> None:
        """Make public keys known, for records whose statement does not carry them."""
        for public in publics:
            if keyid(public) in self.place.register.publics:
                continue  # it was checked when it first came: its name is the hash of all of it
            try:
                self.introduced[keyid(public)] = check_public_key(public)
            except FormatError as error:
                reject("key", "a public key", str(error), rule=error.code)

    def inspect(self, envelope: Envelope) -> Candidate:
        """Check size, shape, signers and signatures; ask no database.

        Raises:
            RejectedError: whose `check` is the code.
        """
        candidate = Candidate.of(envelope)
        self.check_signatures(candidate)
        return candidate

    def check_same(self, candidate: Candidate, logged: LoggedRecord) -> None:
        """Check that a record which is in the log already came from the same keys."""
        if candidate.logged.signers != logged.signers:
            reject("signer-differs", _name(candidate.logged))

    def take(self, candidate: Candidate, index: int) -> None:
        """Check that the record may come next, at this index, and count it in.

        Raises:
            RejectedError: whose `check` is the code.
        """
        entry = candidate.logged
        if not all(self.place.register.may_sign(signer, index) for signer in entry.signers):
            reject("key-ended", _name(entry))
        if code := misplaced(self.place, entry):
            reject(code, _name(entry))
        for signer in entry.signers:
            if public := self.introduced.get(signer):
                self.place.register.introduce(public)
        self.place.register.observe(entry)

    def check_signatures(self, candidate: Candidate) -> None:
        """Check that exactly the keys which its kind demands have signed a record.

        Raises:
            RejectedError: whose `check` is the code.
        """
        entry = candidate.logged
        expected = self._expected_keys(entry)
        if tuple(sorted(expected)) != entry.signers:
            reject("signers", _name(entry))
        roles = self.place.register.roles
        if any(roles.get(name, role) is not role for name, role in roles_shown(entry).items()):
            reject("key-role", _name(entry))
        try:
            verify_signatures(candidate.envelope, expected)
        except RefusedError as error:
            reject("signature", _name(entry), str(error))

    def _expected_keys(self, entry: LoggedRecord) -> Mapping[str, bytes]:
        """Return the keys that must have signed, no more and no fewer."""
        register = self.place.register
        match entry.statement:
            case Step(attempt=attempt) | Segment(attempt=attempt) as statement:
                line = register.attempts.get(attempt)
                if line is None:
                    reject("attempt-unknown", _name(entry))
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
                    reject("run-unknown", _name(entry))
                return {keyid(state.public): state.public}
            case KeyEvent() as event:
                return {keyid(public): public for public in event.signers}
            case _:
                return self._declared_key(entry)

    def _declared_key(self, entry: LoggedRecord) -> Mapping[str, bytes]:
        """Return the one key of a kind whose signer names himself: author, auditor, monitor."""
        signer = entry.signers[0]
        public = self.place.register.publics.get(signer) or self.introduced.get(signer)
        if public is None:
            reject("key-unknown", _name(entry))
        return {signer: public}


def _name(entry: LoggedRecord) -> str:
    match entry.statement:
        case Step(row=row):
            where = f" (step {row.step})"
        case Segment(first=first, last=last):
            where = f" (steps {first} to {last})"
        case _:
            where = ""
    return f"{entry.statement.KIND} {entry.record[:16]}{where}"
