"""Everything that follows from the entries of a log: register, root, tiles, and whether they fit.

A restart believes nothing that it can compute: it hashes every leaf again, and goes on only if
the stored root, the signed head and the tiles on disk are the ones that come out. Of the records it
reads those after the newest snapshot of the register alone; its memory does not grow with the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import FormatError, InputError, RefusedError
from attest.log.register import LoggedRecord, Register
from attest.log.snapshot import Snapshot, damaged_snapshot
from attest.log.store import Committed, Store, StoredEntry
from attest.merkle import Frontier, leaf_hash, tree_root
from attest.tile_files import Tiles
from attest.tiles import TILE_HEIGHT, TILE_WIDTH, TileBuilder, TileFile


@dataclass(slots=True)
class Derivation:
    """Hold what follows from the first `frontier.size` entries.

    `builder` stands at the size of the newest head whose tiles are written.
    """

    register: Register
    frontier: Frontier = field(default_factory=Frontier)
    builder: TileBuilder = field(default_factory=TileBuilder)

    def extend(self, entry: StoredEntry) -> None:
        """Take account of the next entry.

        Raises:
            RefusedError: (check `entry`) if it is no record that the log could have admitted.
        """
        try:
            self.register.observe(read_record(entry))
        except (FormatError, KeyError) as error:
            raise damaged_entry(entry.index, str(error)) from None
        self.register.settle()
        self.frontier.append(leaf_hash(entry.leaf))

    def check_committed(self, committed: Committed) -> None:
        """Check that the entries lead to the root that was committed with them.

        Raises:
            RefusedError: (check `root`) if an entry, or the stored root, has changed.
        """
        derived = Committed(self.frontier.size, self.frontier.root())
        if derived != committed:
            raise RefusedError(
                f"log entries do not lead to the stored root of size {committed.size}: an entry "
                "was altered; restore the log from its tiles or a copy",
                check="root",
            )


class Restart:
    """Derive a log's state from its store; check it against root, signed head and tiles.

    Raises:
        RefusedError: from `derive`, naming the first damage found.
        InputError: from `derive`, if store or tiles cannot be read.
    """

    def __init__(self, store: Store, tiles: Tiles, head: Checkpoint, empty: Register) -> None:
        self._store = store
        self._tiles = tiles
        self._head = head
        data = store.snapshot()
        self._snapshot = None if data is None else Snapshot.from_bytes(data)
        # Keys may have been committed since the snapshot.
        self._register = empty if self._snapshot is None else self._snapshot.register
        self._register.publics |= empty.publics
        self._known = 0 if self._snapshot is None else self._snapshot.at.size

    def derive(self, committed: Committed) -> Derivation:
        """Derive the state of the first `committed.size` entries; others may write meanwhile."""
        check_not_behind(committed.size, self._head)
        if self._known > committed.size:
            raise damaged_snapshot("it knows more entries than there are")
        derivation = Derivation(self._register)
        # Whole tiles that a snapshot and the signed head cover: hashed, and no more.
        whole = min(self._known, self._head.size) // TILE_WIDTH * TILE_WIDTH
        self._hash(derivation, whole)
        for entry in self._store.entries(whole, committed.size):
            self._check(derivation)
            self._take(derivation, entry)
        self._check(derivation)
        for file in derivation.builder.open_files():
            check_file(self._tiles, file)
        derivation.check_committed(committed)
        return derivation

    def _hash(self, derivation: Derivation, whole: int) -> None:
        hashes: list[bytes] = []
        for entry in self._store.entries(0, whole):
            hashes.append(leaf_hash(entry.leaf))
            if len(hashes) == TILE_WIDTH:
                for file in derivation.builder.add_hashes(hashes):
                    check_file(self._tiles, file)
                derivation.frontier.append_subtree(tree_root(hashes), TILE_HEIGHT)
                hashes = []

    def _take(self, derivation: Derivation, entry: StoredEntry) -> None:
        if entry.index < self._head.size:
            for file in derivation.builder.add(entry.leaf):
                check_file(self._tiles, file)
        if entry.index < self._known:
            derivation.frontier.append(leaf_hash(entry.leaf))
            return
        derivation.extend(entry)
        # A record that is not found by its hash would be logged a second time.
        if self._store.index_of(entry.record) != entry.index:
            raise damaged_entry(entry.index, "not found by its record hash")

    def _check(self, derivation: Derivation) -> None:
        """Hold the entries so far to the snapshot and the signed head, where they end here."""
        frontier = derivation.frontier
        if frontier.size == self._head.size:
            check_head(frontier, self._head)
        snapshot = self._snapshot
        if snapshot is None or frontier.size != snapshot.at.size:
            return
        if frontier.root() != snapshot.at.root:
            raise damaged_snapshot("the entries do not lead to its root")


def check_not_behind(size: int, head: Checkpoint) -> None:
    """Check that the log has all entries that its signed head covers."""
    if size < head.size:
        raise RefusedError(
            f"log has {size} entries, its signed head covers {head.size}: it was restored from an "
            "old copy or has lost entries; going on would fork it",
            check="behind head",
        )


def check_head(frontier: Frontier, head: Checkpoint) -> None:
    """Check that the entries lead to the signed head's root."""
    if frontier.root() != head.root:
        raise RefusedError(
            f"log entries do not lead to the signed root of size {head.size}: entries were altered",
            check="signed root",
        )


def check_count(store: Store, committed: Committed) -> None:
    """Check that the store holds no entry beyond those that it says it committed."""
    if store.count() != committed.size:
        raise RefusedError("log store has entries that were never committed", check="store")


def check_file(tiles: Tiles, file: TileFile) -> None:
    """Check that a tile or bundle on disk is the one that the entries give.

    A partial one may have made way for the full one, before a head was signed over that.
    """
    full, partial, _ = file.path.partition(".p/")
    try:
        whole = not partial or tiles.has(file.path)
        data = tiles.read(file.path) if whole else tiles.read(full)[: len(file.data)]
    except InputError as error:
        raise RefusedError(f"log file is missing: {error}", check="tile") from None
    if data != file.data:
        raise RefusedError(f"log file {file.path} is not what the entries give", check="tile")


def read_record(entry: StoredEntry) -> LoggedRecord:
    """Read an entry's record, and check that it is stored under its own hash.

    Raises:
        FormatError: if it is none.
    """
    logged = LoggedRecord.read(Envelope.from_bytes(entry.leaf))
    if logged.hash != entry.record:
        raise FormatError("stored under another record hash", code="record hash")
    return logged


def damaged_entry(index: int, why: str) -> RefusedError:
    """Return the refusal of an entry that cannot have been admitted as it is."""
    return RefusedError(f"log entry {index} is damaged: {why}", check="entry")
