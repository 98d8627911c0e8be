"""What a log needs of the place where it keeps what it has acknowledged.

A store says nothing about right or wrong. Size and root of all committed entries lie beside them
and are written in the same transaction, so that a restart can compare.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class Turn(enum.Enum):
    """Name what one writer does at a time: appending goes on while a head is being published."""

    APPEND = "lock"
    PUBLISH = "publish.lock"


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """Hold one committed entry: log index, record hash, leaf bytes."""

    index: int
    record: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """Hold the size and root of everything committed."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Addition:
    """Hold what one commit adds: entries, the public keys that signed them, and where they lead.

    `before` is what was committed when the entries were judged; the store refuses if it is not so
    any more. `snapshot` replaces the stored one, if there is any.
    """

    before: Committed
    after: Committed
    entries: Sequence[StoredEntry]
    keys: Iterable[bytes] = ()
    snapshot: bytes | None = None


class Store(Protocol):
    """Keep entries, keys, size and root, a snapshot of what follows from them, and the end.

    Raises:
        InputError: from every method, if the database cannot be reached, read or written, or if
            another writer was faster; nothing is half done then, and the call may be repeated.
        RefusedError: (check `store`) from every method, if the database is damaged.
    """

    def close(self) -> None:
        """Close the connection."""
        ...

    def exclusive(self, turn: Turn) -> AbstractContextManager[None]:
        """Have a turn alone, against other threads, processes and, where it can, machines."""
        ...

    def committed(self) -> Committed:
        """Return size and root of what is committed."""
        ...

    def append(self, addition: Addition) -> None:
        """Commit an addition durably, all or nothing, if it continues what is committed."""
        ...

    def entries(self, start: int, stop: int) -> Iterator[StoredEntry]:
        """Yield the entries `start` to `stop` (excluded) in order, every one of them."""
        ...

    def leaf(self, index: int) -> bytes:
        """Return one committed leaf."""
        ...

    def indices_of(self, records: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the indices of those records, by their hashes, that are in the log."""
        ...

    def index_of(self, record: bytes) -> int | None:
        """Return the index of a record by its hash, None if it is not in the log."""
        ...

    def public_keys(self) -> list[bytes]:
        """Return all public keys that were committed with entries."""
        ...

    def count(self) -> int:
        """Return how many entries there are, whatever `committed` says."""
        ...

    def snapshot(self) -> bytes | None:
        """Return the stored snapshot, None if there is none yet."""
        ...

    def freeze(self) -> None:
        """Let nothing more be appended, for good."""
        ...

    def frozen(self) -> bool:
        """Say whether the log was frozen."""
        ...

    def check(self) -> None:
        """Let the database check its own pages and indexes."""
        ...
