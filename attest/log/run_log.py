"""What a run asks of its log, whether that lies beside it or is served by somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from attest.envelope import Envelope
from attest.log.layout import LogNames


class RunLog(Protocol):
    """Log and read records; `LocalLog` and `RemoteLog` do."""

    @property
    def names(self) -> LogNames:
        """Return the keys of the log and of its own witness."""
        ...

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        ...

    @property
    def size(self) -> int:
        """Return how many records there are to read."""
        ...

    def append(self, envelopes: Iterable[Envelope], *, keys: Iterable[bytes] = ()) -> list[int]:
        """Log records in order, and return their indices; a record has one index for ever."""
        ...

    def unlogged(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Return those of a run's consecutive records that may not be in the log yet."""
        ...

    def checkpoint(self) -> bytes:
        """Have everything logged here covered by a published checkpoint; return its note."""
        ...

    def published(self) -> bytes:
        """Return the newest published checkpoint."""
        ...

    def entry(self, index: int) -> Envelope:
        """Return one record."""
        ...

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded)."""
        ...

    def about(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield what concerns a run, by index and in order; more may come along."""
        ...

    def notes(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield those of them that are no rows; more may come along."""
        ...

    def checkpoint_of(self, size: int) -> bytes | None:
        """Return the published checkpoint of one size, None if it is not kept."""
        ...

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if it is not in the log."""
        ...

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of an entry in the first `size` entries."""
        ...

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` entries are a prefix of the first `new`."""
        ...
