"""Signs and publishes a served log's heads at a steady pace, and tells who waits for one.

Behind each head it reads the new entries back from the published files, sorts them by run, and
keeps the checkpoints that statuses name. Nobody else changes the index.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from attest.errors import InputError
from attest.log.kept_heads import KeptHeads
from attest.log.published_log import PublishedLog
from attest.log.run_index import RunIndex

_RETRY_SECONDS = 1.0
# Entries read back at once: the index is held for that long.
_CHUNK = 4096


class Publishable(Protocol):
    """Sign and publish heads; `LocalLog` does."""

    @property
    def size(self) -> int:
        """Return how many records are acknowledged."""
        ...

    @property
    def lacks_lines(self) -> bool:
        """Say whether a witness may be asked again for its line under the newest head."""
        ...

    def checkpoint(self) -> bytes:
        """Publish the head of everything acknowledged; return its note."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiter:
    size: int
    note: Future[bytes]


class Publication:
    """Publish in a thread of its own: at most one head in `seconds`, none while nothing is new.

    `index` knows the runs of all published entries; hold `mutex` while reading it. `trouble` is
    what the last head failed of; `broken` is what ended the thread.
    """

    def __init__(
        self,
        log: Publishable,
        published: PublishedLog,
        kept: KeptHeads,
        *,
        seconds: float,
        told: Callable[[float], None] = lambda seconds: None,
        indexed: Callable[[RunIndex], None] = lambda index: None,
    ) -> None:
        self._log = log
        self._published = published
        self._kept = kept
        self._seconds = seconds
        self._told = told
        self._indexed = indexed
        self._wake = threading.Condition()
        self._closing = False
        self._waiters: list[_Waiter] = []
        self.index = RunIndex()
        self.mutex = threading.Lock()
        self.trouble: InputError | None = None
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="publication", daemon=True)

    def start(self) -> None:
        """Publish what there is, index it, and begin to work."""
        self._publish()
        self._thread.start()

    def close(self) -> None:
        """Publish what is acknowledged, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def covering(self, size: int) -> Future[bytes]:
        """Return what will be the note of a published checkpoint of at least this size."""
        waiter = _Waiter(size, Future())
        with self._wake:
            self._waiters.append(waiter)
            self._wake.notify()
        return waiter.note

    def _work(self) -> None:
        try:
            ending = False
            while not ending:
                ending = self._pause(self._seconds if self.trouble is None else _RETRY_SECONDS)
                try:
                    self._publish()
                    self.trouble = None
                except InputError as error:
                    self.trouble = error
        except Exception as error:  # a damaged log: health shows it, and nothing more is signed
            self.broken = error

    def _pause(self, seconds: float) -> bool:
        """Wait for the next turn; say whether it is the last one."""
        with self._wake:
            return self._wake.wait_for(lambda: self._closing, seconds)

    def _publish(self) -> None:
        seen = self._published.look()
        if self._log.size > seen.head.size or self._log.lacks_lines:
            begun = time.perf_counter()
            self._log.checkpoint()
            seen = self._published.look()
            self._told(time.perf_counter() - begun)
        self._kept.saw(seen.head.size, seen.note)
        self._index(seen.head.size)
        self._indexed(self.index)
        with self._wake:
            waiters = [waiter for waiter in self._waiters if not waiter.note.cancelled()]
            ready = [waiter for waiter in waiters if waiter.size <= seen.head.size]
            self._waiters = [waiter for waiter in waiters if waiter.size > seen.head.size]
        for waiter in ready:
            if waiter.note.set_running_or_notify_cancel():
                waiter.note.set_result(seen.note)

    def _index(self, size: int) -> None:
        while self.index.size < size:
            start = self.index.size
            entries = list(self._published.entries(start, min(size, start + _CHUNK)))
            with self.mutex:
                self.index.extend(entries)
                named, self.index.named_sizes = self.index.named_sizes, []
            self._kept.keep(named)
