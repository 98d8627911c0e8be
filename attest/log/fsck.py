"""Check a log from the ground: derive all of it again, and judge every record as if it were new."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from attest.checkpoint import Checkpoint
from attest.envelope import Envelope
from attest.errors import FormatError, RefusedError
from attest.file_lock import locked
from attest.log.admission import Admission
from attest.log.derivation import check_file, damaged_entry, derive, read_record
from attest.log.layout import Layout, LogNames
from attest.log.placement import Place
from attest.log.publisher import Publisher
from attest.log.register import LoggedRecord
from attest.log.sequencer import new_register
from attest.log.sqlite_store import SqliteStore, StoredEntry
from attest.merkle import HASH_BYTES, LeafRange
from attest.note import Note
from attest.tiles import TileBuilder, TileDirectory, TileTree


@dataclass(frozen=True, slots=True)
class LogReport:
    """Hold what a sound log consists of; `kinds` counts the records, `head` is the signed one."""

    names: LogNames
    size: int
    head: Checkpoint
    kinds: tuple[tuple[str, int], ...]


def fsck(directory: str | Path) -> LogReport:
    """Check store, records, signatures, tiles and heads of a log against each other.

    Raises:
        RefusedError: naming the first damage found.
        InputError: if there is no log, or it cannot be read.
    """
    layout = Layout(Path(directory))
    names = layout.read_names()
    with locked(layout.lock):
        store = SqliteStore(layout.store)
        try:
            store.check()
            publisher = Publisher(layout, names)
            register = new_register(names, store.public_keys())
            derive(store, publisher.tiles, publisher.head, register)
            kinds = _check_admissible(store, names)
            _check_files(store, publisher.tiles)
            _check_published(layout, publisher)
            return LogReport(names, store.committed().size, publisher.head, kinds)
        finally:
            store.close()


def _check_admissible(store: SqliteStore, names: LogNames) -> tuple[tuple[str, int], ...]:
    """Judge every record anew, with its signatures, at its place."""
    register, kinds = new_register(names, store.public_keys()), Counter[str]()
    for entry in store.entries(0, store.committed().size):
        finder = _Finder(store, entry.index)
        admission = Admission(Place(register, finder.find, names.origin, entry.index))
        try:
            candidate = admission.inspect(Envelope.from_bytes(entry.leaf))
            admission.take(candidate)
        except (RefusedError, FormatError) as error:
            raise damaged_entry(entry.index, str(error)) from None
        kinds[candidate.logged.statement.KIND] += 1
    return tuple(sorted(kinds.items()))


@dataclass(frozen=True, slots=True)
class _Finder:
    """Find records that lie before an index."""

    store: SqliteStore
    before: int

    def find(self, record: str) -> LoggedRecord | None:
        hash_ = bytes.fromhex(record)
        index = self.store.index_of(hash_)
        if index is None or index >= self.before:
            return None
        return read_record(StoredEntry(index, hash_, self.store.leaf(index)))


def _check_files(store: SqliteStore, tiles: TileDirectory) -> None:
    """Check every tile and bundle there is, also those that no signed head covers yet.

    Partial files of earlier heads must begin the file that has grown out of them.
    """
    builder, grown = TileBuilder(), dict[str, bytes]()
    present, checked = set(tiles.names()), set[str]()
    for entry in store.entries(0, store.committed().size):
        for file in builder.add(entry.leaf):
            if file.path in present:
                check_file(tiles, file)
                checked.add(file.path)
            else:
                grown[file.path] = file.data
    grown |= {file.path.partition(".p/")[0]: file.data for file in builder.open_files()}
    for path in sorted(present - checked):
        full, partial, width = path.partition(".p/")
        whole = tiles.read(full) if full in checked else grown.get(full, b"")
        data = tiles.read(path)
        cut = int(width) * HASH_BYTES if width.isdecimal() else -1
        of_entries = path.startswith("tile/entries/")
        if not (partial and whole.startswith(data) and (of_entries or len(data) == cut)):
            raise RefusedError(f"log file {path} is not what the entries give", check="tile")


def _check_published(layout: Layout, publisher: Publisher) -> None:
    """Check that the published head is cosigned, and one that the signed head extends."""
    text = Note.from_bytes(publisher.published()).text
    published, head = Checkpoint.from_text(text), publisher.head
    if published.size > head.size:
        raise RefusedError("published checkpoint is ahead of the signed head", check="behind head")
    tree = TileTree(publisher.tiles.read, head.size)
    if tree.range_root(LeafRange(0, published.size)) != published.root:
        raise RefusedError(
            f"{layout.checkpoint}: is no prefix of the signed head", check="published root"
        )
