"""Check a log from the ground: derive all of it again, and judge every record as if it were new.

One pass, in memory that does not grow with the log, and beside writers: what was committed when it
began is checked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import FormatError, InputError, RefusedError
from attest.log.admission import Admission
from attest.log.derivation import (
    check_count,
    check_file,
    check_head,
    check_not_behind,
    damaged_entry,
    read_record,
)
from attest.log.layout import Layout, LogNames
from attest.log.placement import Place
from attest.log.places import Places
from attest.log.publisher import Publisher
from attest.log.register import LoggedRecord, Register
from attest.log.sequencer import new_register
from attest.log.snapshot import Snapshot, damaged_snapshot
from attest.log.store import Committed, Store, StoredEntry, Turn
from attest.merkle import HASH_BYTES, Frontier, LeafRange, leaf_hash
from attest.note import Note
from attest.tile_files import Tiles
from attest.tiles import TileBuilder, TileFile, TileTree

# Told how many entries are checked, of how many.
Progress = Callable[[int, int], None]
_TELL_EVERY = 1024


@dataclass(frozen=True, slots=True)
class LogReport:
    """Hold what a sound log consists of; `kinds` counts the records, `head` is the signed one.

    `seconds` is how long it took to check them.
    """

    names: LogNames
    size: int
    head: Checkpoint
    kinds: tuple[tuple[str, int], ...]
    seconds: float

    @property
    def records_per_second(self) -> float:
        """Return the rate at which records were checked."""
        return self.size / self.seconds


def fsck(directory: str | Path, *, progress: Progress | None = None) -> LogReport:
    """Check store, records, signatures, tiles and heads of a log against each other.

    Raises:
        RefusedError: naming the first damage found.
        InputError: if there is no log, or it cannot be read.
    """
    began = time.monotonic()
    layout = Layout(Path(directory))
    names, places = layout.read_names(), Places.read(layout)
    with closing(places.open_store(layout)) as store, closing(places.open_heads(layout)) as heads:
        with store.exclusive(Turn.APPEND), store.exclusive(Turn.PUBLISH):
            tiles = places.open_tiles(layout)
            publisher = Publisher(tiles, heads, names)
            committed = store.committed()
            check_count(store, committed)
            present = set(tiles.names())
            published = publisher.published()
        check_not_behind(committed.size, publisher.head)
        store.check()
        files = _Files(tiles, present, publisher.head.size)
        walk = _Walk(store, names, publisher.head, files)
        walk.check(committed, progress or (lambda done, total: None))
        _check_published(published, publisher)
        kinds = tuple(sorted(walk.kinds.items()))
        seconds = time.monotonic() - began
        return LogReport(names, committed.size, publisher.head, kinds, seconds)


class _Walk:
    """Judge every record anew, with its signatures, at its place; hash it; look at its files."""

    def __init__(self, store: Store, names: LogNames, head: Checkpoint, files: _Files) -> None:
        self.kinds = Counter[str]()
        self._store = store
        self._names = names
        self._head = head
        self._files = files
        self._register = new_register(names, store.public_keys())
        self._frontier = Frontier()
        data = store.snapshot()
        self._snapshot = None if data is None else Snapshot.from_bytes(data)

    def check(self, committed: Committed, progress: Progress) -> None:
        self._check_here()
        for entry in self._store.entries(0, committed.size):
            self._admit(entry)
            self._frontier.append(leaf_hash(entry.leaf))
            self._check_here()
            self._files.add(entry.leaf)
            if self._frontier.size % _TELL_EVERY == 0:
                progress(self._frontier.size, committed.size)
        if self._frontier.root() != committed.root:
            raise RefusedError("log entries do not lead to the stored root", check="root")
        if self._snapshot is not None and self._snapshot.at.size > committed.size:
            raise damaged_snapshot("it knows more entries than there are")
        self._files.check_rest()

    def _admit(self, entry: StoredEntry) -> None:
        finder = _Finder(self._store, entry.index)
        place = Place(self._register, finder.find, self._names.origin, entry.index)
        admission = Admission(place)
        try:
            candidate = admission.inspect(Envelope.from_bytes(entry.leaf))
            admission.take(candidate, entry.index)
        except (RefusedError, FormatError) as error:
            raise damaged_entry(entry.index, str(error)) from None
        if candidate.logged.hash != entry.record:
            raise damaged_entry(entry.index, "stored under another record hash")
        if self._store.index_of(entry.record) != entry.index:
            raise damaged_entry(entry.index, "not found by its record hash")
        self._register.settle()
        self.kinds[candidate.logged.statement.KIND] += 1

    def _check_here(self) -> None:
        """Hold the entries so far to the signed head and the snapshot, where they end here."""
        size = self._frontier.size
        if size == self._head.size:
            check_head(self._frontier, self._head)
        if self._snapshot is not None and size == self._snapshot.at.size:
            kept = self._snapshot
            if kept.at.root != self._frontier.root() or not _same(kept.register, self._register):
                raise damaged_snapshot(f"it is not what the first {size} entries give")


def _same(kept: Register, derived: Register) -> bool:
    """Compare registers, but for public keys that were committed after the one that was kept."""
    keys = kept.publics.items() <= derived.publics.items()
    tables = ("roles", "contracts", "runs", "attempts")
    return keys and all(getattr(kept, name) == getattr(derived, name) for name in tables)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Find records that lie before an index."""

    store: Store
    before: int

    def find(self, record: str) -> LoggedRecord | None:
        hash_ = bytes.fromhex(record)
        index = self.store.index_of(hash_)
        if index is None or index >= self.before:
            return None
        return read_record(StoredEntry(index, hash_, self.store.leaf(index)))


@dataclass(slots=True)
class _Files:
    """Check every tile and bundle there is, also those that no signed head covers yet.

    Partial files of earlier heads must begin the file that has grown out of them.
    """

    tiles: Tiles
    present: set[str]
    signed: int
    builder: TileBuilder = field(default_factory=TileBuilder)
    partial: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def __post_init__(self) -> None:
        for path in self.present:
            full, partial, _ = path.partition(".p/")
            if partial:
                self.partial.setdefault(full, []).append(path)

    def add(self, leaf: bytes) -> None:
        """Check the files that a leaf completes, and those that the signed head ends with."""
        for file in self.builder.add(leaf):
            if file.path in self.present or self.builder.size <= self.signed:
                check_file(self.tiles, file)
                self.present.discard(file.path)
            self._check_partial(file.path, file)
        if self.builder.size == self.signed:
            for file in self.builder.open_files():
                check_file(self.tiles, file)

    def check_rest(self) -> None:
        """Check the partial files at the end; nothing else may be left."""
        for file in self.builder.open_files():
            self._check_partial(file.path.partition(".p/")[0], file)
        for path in sorted(self.present):
            raise _not_given(path)

    def _check_partial(self, full: str, whole: TileFile) -> None:
        """Check the partial files, under the path of a full one, against what they have become."""
        for path in self.partial.pop(full, []):
            width = path.partition(".p/")[2]
            self.present.discard(path)
            try:
                data = self.tiles.read(path)
            except InputError:
                continue  # it has made way for the full one since we looked
            of_entries = path.startswith("tile/entries/")
            cut = int(width) * HASH_BYTES if width.isdecimal() else -1
            if not (whole.data.startswith(data) and (of_entries or len(data) == cut)):
                raise _not_given(path)


def _not_given(path: str) -> RefusedError:
    return RefusedError(f"log file {path} is not what the entries give", check="tile")


def _check_published(published: bytes, publisher: Publisher) -> None:
    """Check that the published head, which is cosigned, is one that the signed head extends."""
    seen, head = Checkpoint.from_text(Note.from_bytes(published).text), publisher.head
    if seen.size > head.size:
        raise RefusedError("published checkpoint is ahead of the signed head", check="behind head")
    tree = TileTree(publisher.tiles.read, head.size)
    if tree.range_root(LeafRange(0, seen.size)) != seen.root:
        raise RefusedError(
            "published checkpoint is no prefix of the signed head", check="published root"
        )
