"""The reading side of a log: records, indices and proofs, while others write."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from attest.envelope import Envelope
from attest.errors import InputError
from attest.log.layout import LogNames
from attest.log.publisher import Publisher
from attest.log.store import Store, StoredEntry
from attest.merkle import leaf_hash, verify_inclusion
from attest.tile_files import Tiles
from attest.tiles import TileTree

_CHUNK = 256


class LogReader:
    """Read a log by a connection of its own: readers wait for no writer, only for each other."""

    def __init__(self, names: LogNames, store: Store, publisher: Publisher) -> None:
        self._names = names
        self._reading = threading.Lock()
        self._read_store = store
        self._publisher = publisher

    @property
    def names(self) -> LogNames:
        """Return the log's and its witness's verifier keys."""
        return self._names

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return self._names.origin

    @property
    def tiles(self) -> Tiles:
        """Return the published files."""
        return self._publisher.tiles

    @property
    def size(self) -> int:
        """Return how many records are acknowledged, by this process or another."""
        with self._reading:
            return self._read_store.committed().size

    @property
    def frozen(self) -> bool:
        """Say whether the log takes no record any more."""
        with self._reading:
            return self._read_store.frozen()

    def published(self) -> bytes:
        """Return the newest published checkpoint: the log's line and its witness's."""
        return self._publisher.published()

    def entry(self, index: int) -> Envelope:
        """Return one acknowledged record."""
        with self._reading:
            return Envelope.from_bytes(self._read_store.leaf(index))

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded).

        Raises:
            InputError: if the log has not got so far.
        """
        if not 0 <= start <= stop <= self.size:
            raise InputError(f"log {self.origin} has no entries {start} to {stop}")
        for entry in self._stored(start, stop):
            yield Envelope.from_bytes(entry.leaf)

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if it is not in the log."""
        with self._reading:
            return self._read_store.index_of(record_hash)

    def unlogged(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Return those of some records that are not in the log yet."""
        return [e for e in envelopes if self.index_of(e.record_hash()) is None]

    def about(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield all entries with their indices: a log beside its run is short enough to read."""
        return enumerate(self.entries(0, self.size))

    def notes(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield all entries with their indices; whoever assembles a proof passes over the rows."""
        return self.about(run)

    def checkpoint_of(self, size: int) -> bytes | None:
        """Return None: a log that nobody serves keeps its newest checkpoint alone."""
        return None

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of an entry in the first `size` entries, from the tiles."""
        tree = self._tree(size)
        path = tree.inclusion_path(index, size)
        if size == tree.size:
            with self._reading:
                leaf = leaf_hash(self._read_store.leaf(index))
            verify_inclusion(index, size, leaf, path, tree.root())
        return path

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` entries are a prefix of the first `new`."""
        return self._tree(new).consistency_path(old, new)

    def _stored(self, start: int, stop: int) -> Iterator[StoredEntry]:
        for first in range(start, stop, _CHUNK):
            with self._reading:
                chunk = list(self._read_store.entries(first, min(first + _CHUNK, stop)))
            yield from chunk

    def _tree(self, size: int) -> TileTree:
        if size > self._publisher.head.size:
            self._publisher.refresh()
        if size > self._publisher.head.size:
            raise InputError(f"log {self.origin} has no signed head of {size}; checkpoint it first")
        return self._publisher.tree()
