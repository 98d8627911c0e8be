"""Records on their way into the log: judged in order, each against all those before it."""

from __future__ import annotations

from collections.abc import Iterable

from attest.envelope import Envelope
from attest.errors import FormatError, RefusedError
from attest.log.admission import Admission, Candidate
from attest.log.derivation import damaged_entry, read_record
from attest.log.placement import Place
from attest.log.register import LoggedRecord, Register
from attest.log.store import Store, StoredEntry
from attest.log.submission import Outcome, Submission
from attest.rejections import TABLE, reject


class SecondFinalError(RefusedError):
    """Report a second final record of a run: `first` and `second` are the two envelopes."""

    def __init__(self, message: str, *, run: str, first: bytes, second: bytes) -> None:
        super().__init__(message, check="final-conflict")
        self.run = run
        self.first = first
        self.second = second


class Batch:
    """Collect the new entries of one append; nothing is written here.

    `register` grows with what is taken: whoever does not commit the batch undoes that.
    """

    def __init__(self, store: Store, register: Register, origin: str, size: int) -> None:
        self.register = register
        self.entries: list[StoredEntry] = []
        self._store = store
        self._size = size
        self._frozen = store.frozen()
        self._pending: dict[bytes, LoggedRecord] = {}
        self._indices: dict[bytes, int | None] = {}
        self.admission = Admission(Place(register, self._find, origin, size))

    def look_up(self, candidates: Iterable[Candidate]) -> None:
        """Find at once which records are in the log already, and where."""
        hashes = [candidate.logged.hash for candidate in candidates]
        found = self._store.indices_of(hashes)
        self._indices |= {hash_: found.get(hash_) for hash_ in hashes}

    def add(self, candidate: Candidate) -> int:
        """Judge a record that was looked up; return the index it has or will have.

        Raises:
            RefusedError: if the log does not take it; the batch is then as it was before.
        """
        self.admission.check_signatures(candidate)
        known = self._indices[candidate.logged.hash]
        if known is not None:
            logged = self._find(candidate.logged.record)
            if logged is None:
                raise damaged_entry(known, "found by its hash, but not there")
            self.admission.check_same(candidate, logged)
            return known
        if self._frozen:
            reject("frozen", f"record {candidate.logged.record[:16]}")
        index = self._size + len(self.entries)
        try:
            self.admission.take(candidate, index)
        except RefusedError as error:
            raise self._explained(error, candidate.envelope, candidate.logged) from None
        self.entries.append(StoredEntry(index, candidate.logged.hash, candidate.leaf))
        self._pending[candidate.logged.hash] = candidate.logged
        self._indices[candidate.logged.hash] = index
        return index

    def take(self, submission: Submission) -> Outcome:
        """Judge the records of one submitter, in order, up to the first that is refused."""
        # Keys count for who brings them: nobody fills the register with keys that sign nothing.
        self.admission.introduced.clear()
        indices: list[int] = []
        try:
            self.admission.introduce(submission.keys)
            for candidate in submission.records:
                indices.append(self.add(candidate))
        except RefusedError as error:
            if error.check not in TABLE:
                raise  # the log itself is damaged
            return Outcome(tuple(indices), error)
        return Outcome(tuple(indices), submission.then)

    def used_keys(self) -> list[bytes]:
        """Return the public keys that signed the new entries."""
        signers = {signer for entry in self._pending.values() for signer in entry.signers}
        return sorted(self.register.publics[signer] for signer in signers)

    def _find(self, record: str) -> LoggedRecord | None:
        hash_ = bytes.fromhex(record)
        if pending := self._pending.get(hash_):
            return pending
        index = self._store.index_of(hash_)
        if index is None:
            return None
        try:
            return read_record(StoredEntry(index, hash_, self._store.leaf(index)))
        except FormatError as error:
            raise damaged_entry(index, str(error)) from None

    def _explained(
        self, error: RefusedError, envelope: Envelope, logged: LoggedRecord
    ) -> RefusedError:
        """Put the first final beside a second one: together they are evidence against the run."""
        run = getattr(logged.statement, "run", "")
        final = self.register.runs[run].final if run in self.register.runs else None
        if error.check != "final-conflict" or final is None:
            return error
        index = self._store.index_of(bytes.fromhex(final))
        if index is None:  # the first one came in this very batch, which is refused as a whole
            return error
        return SecondFinalError(
            str(error), run=run, first=self._store.leaf(index), second=envelope.to_bytes()
        )
