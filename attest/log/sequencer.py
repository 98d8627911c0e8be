"""The log: one writer at a time gives each record its index, for good, and signs the tree.

What is acknowledged is on the disk. A head is signed only after everything it covers is durable, it
extends the head before, and the tiles that a reader will see lead to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.durable_file import make_directory, replace_file
from attest.envelope import Envelope
from attest.errors import InputError
from attest.file_lock import locked
from attest.keys import ALG_ED25519, PrivateKey, Role, VerifierKey, keyid
from attest.log.admission import Candidate
from attest.log.batch import Batch, SecondFinalError
from attest.log.derivation import check_not_behind, derive
from attest.log.head_store import HeadStore
from attest.log.layout import Layout, LogNames
from attest.log.publisher import Publisher, Signers, no_keys
from attest.log.register import Register
from attest.log.sqlite_store import Committed, SqliteStore
from attest.log.submission import Outcome, Submission
from attest.merkle import EMPTY_ROOT, leaf_hash, verify_inclusion
from attest.tiles import TileTree
from attest.witness import Clock, Witness


class LocalLog:
    """Keep a log in a directory; several processes and threads may hold it open.

    `create` makes one, `open` opens one. Every method may raise InputError (disk, locks) or
    RefusedError (damage); nothing is half done then, and the log stays usable.
    """

    def __init__(self, layout: Layout, names: LogNames, signers: Signers | None) -> None:
        self._layout = layout
        self._names = names
        self._signers = signers
        self._mutex = threading.RLock()
        self._store = SqliteStore(layout.store)
        try:
            with locked(layout.lock):
                self._publisher = Publisher(layout, names)
                head, tiles = self._publisher.head, self._publisher.tiles
                register = new_register(names, self._store.public_keys())
                self._derived = derive(self._store, tiles, head, register)
        except BaseException:
            self._store.close()
            raise

    @classmethod
    def create(
        cls,
        directory: str | Path,
        log_key: PrivateKey,
        witness_key: PrivateKey,
        origin: str,
        *,
        clock: Clock = time.time,
    ) -> LocalLog:
        """Make an empty log with a witness of its own, and publish its empty tree.

        Raises:
            InputError: if the directory holds anything already.
        """
        layout = Layout(Path(directory))
        make_directory(layout.root)
        if any(layout.root.iterdir()):
            raise InputError(f"{directory}: is not empty; give the log a directory of its own")
        log = VerifierKey(origin, ALG_ED25519, log_key.public)
        witness = Witness.create(layout.witness, witness_key, f"{origin}/witness", clock)
        witness.register(log)
        SqliteStore.create(layout.store).close()
        empty = sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), log_key)
        HeadStore(layout.head).create(empty.to_bytes())
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
        return cls(layout, names, Signers(log_key, witness))

    def close(self) -> None:
        """Close the store; nothing acknowledged is lost without."""
        with self._mutex:
            self._store.close()

    def __enter__(self) -> LocalLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def names(self) -> LogNames:
        """Return the log's and its witness's verifier keys."""
        return self._names

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return self._names.origin

    @property
    def size(self) -> int:
        """Return how many records are acknowledged, by this process or another."""
        with self._mutex:
            return self._store.committed().size

    def append(self, envelopes: Iterable[Envelope], *, keys: Iterable[bytes] = ()) -> list[int]:
        """Log records, all or none, and return their indices; a record has one index for ever.

        `keys` are public keys of authors, auditors, monitors, reporters or holders that this log
        does not know yet: their records name them by keyid only.

        Raises:
            RefusedError: whose `check` is a code of `admission.REFUSALS`.
        """
        with self._exclusive():
            batch = self._batch()
            batch.admission.introduce(keys)
            try:
                indices = [batch.add(Candidate.of(envelope)) for envelope in envelopes]
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
            batch = self._batch()
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
            frontier, builder = self._derived.frontier, self._derived.builder
            if self._publisher.head.size < frontier.size:
                entries = self._store.entries(builder.size, frontier.size)
                leaves = (entry.leaf for entry in entries)
                self._derived.builder = self._publisher.write_tiles(builder, leaves)
                new = Checkpoint(self.origin, frontier.size, frontier.root())
                self._publisher.sign(new, self._signers.log)
            return self._publisher.publish(self._signers.witness)

    def published(self) -> bytes:
        """Return the newest published checkpoint: the log's line and its witness's."""
        return self._publisher.published()

    def entry(self, index: int) -> Envelope:
        """Return one acknowledged record."""
        with self._mutex:
            return Envelope.from_bytes(self._store.leaf(index))

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded).

        Raises:
            InputError: if the log has not got so far.
        """
        if not 0 <= start <= stop <= self.size:
            raise InputError(f"log {self.origin} has no entries {start} to {stop}")
        for first in range(start, stop, 256):
            with self._mutex:
                chunk = list(self._store.entries(first, min(first + 256, stop)))
            yield from (Envelope.from_bytes(entry.leaf) for entry in chunk)

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if it is not in the log."""
        with self._mutex:
            return self._store.index_of(record_hash)

    def last_step(self, attempt: str) -> int | None:
        """Return the last step of an attempt (record hash, hex) that a step or a segment covers.

        An attempt without either is at the number of steps it started from; None if it is unknown.
        """
        with self._exclusive():
            line = self._derived.register.attempts.get(attempt)
            return None if line is None else max(line.step, line.segment)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of an entry in the first `size` entries, from the tiles."""
        with self._mutex:
            path = self._tree(size).inclusion_path(index, size)
            head = self._publisher.head
            if size == head.size:
                leaf = leaf_hash(self._store.leaf(index))
                verify_inclusion(index, size, leaf, path, head.root)
            return path

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` entries are a prefix of the first `new`."""
        with self._mutex:
            return self._tree(new).consistency_path(old, new)

    def _tree(self, size: int) -> TileTree:
        if size > self._publisher.head.size:
            self._publisher.refresh()
        if size > self._publisher.head.size:
            raise InputError(f"log {self.origin} has no signed head of {size}; checkpoint it first")
        return self._publisher.tree()

    def _batch(self) -> Batch:
        register, size = self._derived.register.copy(), self._derived.frontier.size
        return Batch(self._store, register, self.origin, size)

    def _commit(self, batch: Batch) -> None:
        if not batch.entries:
            return
        frontier = self._derived.frontier.copy()
        for entry in batch.entries:
            frontier.append(leaf_hash(entry.leaf))
        committed = Committed(frontier.size, frontier.root())
        self._store.append(batch.entries, batch.used_keys(), committed)
        self._derived.register, self._derived.frontier = batch.register, frontier

    def _keep_conflict(self, error: SecondFinalError) -> None:
        path = self._layout.conflicts / f"{error.run}.jsonl"
        # One pair per run is evidence enough; more would let a run fill the disk.
        if not path.exists():
            make_directory(path.parent)
            replace_file(path, error.first + b"\n" + error.second + b"\n")

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the log against other threads and processes, up to date with what they did."""
        with self._mutex, locked(self._layout.lock):
            committed, head = self._store.committed(), self._publisher.refresh()
            check_not_behind(committed.size, head)
            if committed.size != self._derived.frontier.size:
                for entry in self._store.entries(self._derived.frontier.size, committed.size):
                    self._derived.extend(entry)
                for public in self._store.public_keys():
                    self._derived.register.introduce(public)
            self._derived.check_committed(committed)
            yield


def new_register(names: LogNames, keys: Iterable[bytes]) -> Register:
    """Return the register of an empty log: its own keys have their roles, others are known."""
    register = Register()
    register.roles = {keyid(names.log.public): Role.LOG, keyid(names.witness.public): Role.WITNESS}
    for public in keys:
        register.introduce(public)
    return register
