"""The log: one writer at a time gives each record its index, for good, and signs the tree.

What is acknowledged is on the disk. A head is signed only after everything it covers is durable, it
extends the head before, and the tiles that a reader will see lead to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.durable_file import make_directory, replace_file
from attest.envelope import Envelope
from attest.errors import InputError
from attest.keys import ALG_ED25519, PrivateKey, Role, VerifierKey, keyid
from attest.log.admission import Candidate
from attest.log.batch import Batch, SecondFinalError
from attest.log.derivation import Restart, check_count, check_not_behind
from attest.log.http_witness import Witnesses
from attest.log.layout import Layout, LogNames
from attest.log.places import Places
from attest.log.publisher import Publisher, Signers, no_keys
from attest.log.reader import LogReader
from attest.log.register import Register
from attest.log.snapshot import SNAPSHOT_EVERY, Snapshot
from attest.log.store import Addition, Committed, Turn
from attest.log.submission import Outcome, Submission
from attest.merkle import EMPTY_ROOT, leaf_hash
from attest.witness import Clock, Witness


class LocalLog(LogReader):
    """Keep a log in a directory; several processes and threads may hold it open.

    `create` makes one, `open` opens one. Every method may raise InputError (disk, locks) or
    RefusedError (damage); nothing is half done then, and the log stays usable.

    Three connections to its store: records are appended by one, published by another and read by a
    third, so that nobody waits for tiles to be written but who asked for a checkpoint.
    """

    def __init__(self, layout: Layout, names: LogNames, signers: Signers | None) -> None:
        places = Places.read(layout)
        self._layout = layout
        self._signers = signers
        self._appending = threading.RLock()
        self._publishing = threading.RLock()
        with ExitStack() as opened:
            stores = [opened.enter_context(closing(places.open_store(layout))) for _ in range(3)]
            self._store, self._publish_store, read_store = stores
            tiles, heads = places.open_tiles(layout), places.open_heads(layout)
            opened.callback(heads.close)
            with self._store.exclusive(Turn.APPEND):
                publisher = Publisher(tiles, heads, names)
                committed = self._store.committed()
                check_count(self._store, committed)
            super().__init__(names, read_store, publisher)
            register = new_register(names, self._store.public_keys())
            restart = Restart(self._store, tiles, publisher.head, register)
            self._derived = restart.derive(committed)
            # Only what is sound stays open.
            self._opened = opened.pop_all()

    @classmethod
    def create(
        cls,
        directory: str | Path,
        log_key: PrivateKey,
        witness_key: PrivateKey,
        origin: str,
        *,
        places: Places | None = None,
        clock: Clock = time.time,
    ) -> LocalLog:
        """Make an empty log with a witness of its own, and publish its empty tree.

        `places` are where its parts lie, by default all in the directory.

        Raises:
            InputError: if the directory, or one of the places, holds anything already.
        """
        layout = Layout(Path(directory))
        make_directory(layout.root)
        if any(layout.root.iterdir()):
            raise InputError(f"{directory}: is not empty; give the log a directory of its own")
        log = VerifierKey(origin, ALG_ED25519, log_key.public)
        witness = Witness.create(layout.witness, witness_key, f"{origin}/witness", clock)
        witness.register(log)
        empty = sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), log_key)
        (places or Places()).create(layout, empty.to_bytes())
        names = LogNames(log, witness.vkey)
        layout.write_names(names)
        created = cls(layout, names, Signers(log_key, witness))
        created.checkpoint()
        return created

    @classmethod
    def open(
        cls, directory: str | Path, *, keys: str | Path | None = None, clock: Clock = time.time
    ) -> LocalLog:
        """Open a log: derive everything from its entries, and refuse on any mismatch.

        `keys` is the folder of its private keys `log` and `witness`, by default `keys` beside the
        log. Without them the log takes records but signs no checkpoint.
        """
        layout = Layout(Path(directory))
        names = layout.read_names()
        folder = layout.root.absolute().parent / "keys" if keys is None else Path(keys)
        if not (folder / "log").exists() or not (folder / "witness").exists():
            return cls(layout, names, None)
        log_key = PrivateKey.load(folder / "log")
        if log_key.public != names.log.public:
            raise InputError(f"{folder / 'log'}: is not the key of log {names.origin}")
        witness = Witness(layout.witness, PrivateKey.load(folder / "witness"), clock)
        return cls(layout, names, Signers(log_key, witness, Witnesses.read(layout.root)))

    def close(self) -> None:
        """Close the store; nothing acknowledged is lost without."""
        with self._appending, self._publishing, self._reading:
            self._opened.close()

    def __enter__(self) -> LocalLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, envelopes: Iterable[Envelope], *, keys: Iterable[bytes] = ()) -> list[int]:
        """Log records, all or none, and return their indices; a record has one index for ever.

        `keys` are public keys of authors, auditors, monitors, reporters or holders that this log
        does not know yet: their records name them by keyid only.

        Raises:
            RefusedError: whose `check` is a code of `admission.REFUSALS`.
        """
        candidates = [Candidate.of(envelope) for envelope in envelopes]
        with self._exclusive():
            batch = self._batch(candidates)
            batch.admission.introduce(keys)
            try:
                indices = [batch.add(candidate) for candidate in candidates]
            except SecondFinalError as error:
                self._keep_conflict(error)
                raise
            self._commit(batch)
            return indices

    def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """Log what several submitters hand in, in one transaction; return what became of each.

        Of a submission the records before its first refused one are logged; others are not touched
        by it. What is returned is on the disk.
        """
        with self._exclusive():
            batch = self._batch(record for one in submissions for record in one.records)
            outcomes = [batch.take(submission) for submission in submissions]
            self._commit(batch)
            for outcome in outcomes:
                if isinstance(outcome.refusal, SecondFinalError):
                    self._keep_conflict(outcome.refusal)
            return outcomes

    def checkpoint(self) -> bytes:
        """Sign, have witnessed and publish the head of everything acknowledged; return the note.

        Raises:
            InputError: if the log was opened without its keys.
            RefusedError: if the tree does not extend the head signed before.
        """
        if self._signers is None:
            raise no_keys(self.origin)
        with self._exclusive():
            frontier = self._derived.frontier.copy()
        new = Checkpoint(self.origin, frontier.size, frontier.root())
        with self._publishing, self._publish_store.exclusive(Turn.PUBLISH):
            # Another process may have signed a larger one by now.
            if self._publisher.refresh().size < new.size:
                builder = self._derived.builder
                leaves = (e.leaf for e in self._publish_store.entries(builder.size, new.size))
                self._derived.builder = self._publisher.write_tiles(builder, leaves)
                self._publisher.sign(new, self._signers.log)
            return self._publisher.publish(self._signers)

    @property
    def lacks_lines(self) -> bool:
        """Say whether a witness elsewhere may be asked again for its line under the newest head."""
        others = self.witnesses
        return bool(others.witnesses) and self._publisher.lacks_lines(others)

    @property
    def witnesses(self) -> Witnesses:
        """Return the witnesses elsewhere that are asked to cosign; none without the log's keys."""
        return Witnesses() if self._signers is None else self._signers.others

    def freeze(self) -> bytes:
        """Take no record any more, for good; return the checkpoint of all there are."""
        with self._exclusive():
            self._store.freeze()
        return self.checkpoint()

    def last_step(self, attempt: str) -> int | None:
        """Return the last step of an attempt (record hash, hex) that a step or a segment covers.

        An attempt without either is at the number of steps it started from; None if it is unknown.
        """
        with self._exclusive():
            line = self._derived.register.attempts.get(attempt)
            return None if line is None else max(line.step, line.segment)

    def _batch(self, candidates: Iterable[Candidate]) -> Batch:
        derived = self._derived
        batch = Batch(self._store, derived.register, self.origin, derived.frontier.size)
        batch.look_up(candidates)
        return batch

    def _commit(self, batch: Batch) -> None:
        if not batch.entries:
            return
        before, frontier = self._derived.frontier, self._derived.frontier.copy()
        for entry in batch.entries:
            frontier.append(leaf_hash(entry.leaf))
        after = Committed(frontier.size, frontier.root())
        self._store.append(
            Addition(
                Committed(before.size, before.root()),
                after,
                batch.entries,
                batch.used_keys(),
                self._snapshot(before.size, after),
            )
        )
        self._derived.register.settle()
        self._derived.frontier = frontier

    def _snapshot(self, before: int, after: Committed) -> bytes | None:
        if before // SNAPSHOT_EVERY == after.size // SNAPSHOT_EVERY:
            return None
        return Snapshot(after, self._derived.register).to_bytes()

    def _keep_conflict(self, error: SecondFinalError) -> None:
        path = self._layout.conflicts / f"{error.run}.jsonl"
        # One pair per run is evidence enough; more would let a run fill the disk.
        if not path.exists():
            make_directory(path.parent)
            replace_file(path, error.first + b"\n" + error.second + b"\n")

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the log against other threads and processes, up to date with what they did.

        What was judged inside but not committed is forgotten at the end.
        """
        with self._appending, self._store.exclusive(Turn.APPEND):
            committed, head = self._store.committed(), self._publisher.refresh()
            check_not_behind(committed.size, head)
            if committed.size != self._derived.frontier.size:
                for entry in self._store.entries(self._derived.frontier.size, committed.size):
                    self._derived.extend(entry)
                for public in self._store.public_keys():
                    self._derived.register.introduce(public)
                self._derived.register.settle()
            self._derived.check_committed(committed)
            try:
                yield
            finally:
                self._derived.register.undo()


def new_register(names: LogNames, keys: Iterable[bytes]) -> Register:
    """Return the register of an empty log: its own keys have their roles, others are known."""
    register = Register()
    register.roles = {keyid(names.log.public): Role.LOG, keyid(names.witness.public): Role.WITNESS}
    for public in keys:
        register.introduce(public)
    return register
