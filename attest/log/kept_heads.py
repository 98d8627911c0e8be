"""Published checkpoints that somebody may still ask for, after newer ones have replaced them.

A status speaks of the log at one size, and a proof with that status shows the checkpoint of that
size beside its own. Checkpoints that a status names are kept for good, others for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from attest.durable_file import make_directory, read_file, replace_file
from attest.errors import InputError
from attest.note import MAX_NOTE_BYTES

_MOST = 4096


class KeptHeads:
    """Keep published notes by size: the last ones in memory, those named in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def saw(self, size: int, note: bytes) -> None:
        """Remember a published note for a while; of one size the newest, with the most lines."""
        self._recent[size] = note
        while len(self._recent) > _MOST:
            self._recent.popitem(last=False)

    def keep(self, sizes: Iterable[int]) -> None:
        """Keep the notes of these sizes for good, where they are at hand.

        Raises:
            InputError: if the disk is full or fails.
        """
        for size in sizes:
            path = self._path(size)
            if size in self._recent and not path.exists():
                make_directory(self._directory)
                replace_file(path, self._recent[size])

    def find(self, size: int) -> bytes | None:
        """Return the note of a size, None if it is not kept."""
        if note := self._recent.get(size):
            return note
        try:
            return read_file(self._path(size), MAX_NOTE_BYTES)
        except InputError:
            return None

    def _path(self, size: int) -> Path:
        return self._directory / str(size)
