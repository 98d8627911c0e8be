"""Everything that follows from the entries of a log: register, root, tiles, and whether they fit.

A restart believes nothing that it can compute: it hashes every leaf again, and goes on only if
the stored root, the signed head and the tiles on disk are the ones that come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import FormatError, InputError, RefusedError
from attest.log.register import LoggedRecord, Register
from attest.log.sqlite_store import Committed, SqliteStore, StoredEntry
from attest.merkle import Frontier, leaf_hash
from attest.tiles import TileBuilder, TileDirectory, TileFile


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


def derive(
    store: SqliteStore, tiles: TileDirectory, head: Checkpoint, register: Register
) -> Derivation:
    """Derive a log's state from its store; check it against root, signed head and tiles.

    Raises:
        RefusedError: naming the first damage found.
        InputError: if store or tiles cannot be read.
    """
    derivation = Derivation(register)
    committed = store.committed()
    check_not_behind(committed.size, head)
    if store.count() != committed.size:
        raise RefusedError("log store has entries that were never committed", check="store")
    for entry in store.entries(0, committed.size):
        if entry.index < head.size:
            for file in derivation.builder.add(entry.leaf):
                check_file(tiles, file)
        derivation.extend(entry)
        # A record that is not found by its hash would be logged a second time.
        if store.index_of(entry.record) != entry.index:
            raise damaged_entry(entry.index, "not found by its record hash")
        if derivation.frontier.size == head.size:
            check_head(derivation.frontier, head)
    for file in derivation.builder.open_files():
        check_file(tiles, file)
    derivation.check_committed(committed)
    return derivation


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


def check_file(tiles: TileDirectory, file: TileFile) -> None:
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
