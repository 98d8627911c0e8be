"""The signed head of a log, kept apart from its entries and only ever exchanged as a whole.

A log that comes back with less than its head covers was restored from an old copy, or lost what it
had acknowledged; signing again from there would fork it. So the head is written before anything
else learns of it, and only over the head that the writer had read (compare and swap).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attest.durable_file import read_file, replace_file
from attest.errors import InputError, RefusedError
from attest.file_lock import locked
from attest.note import MAX_NOTE_BYTES


class Heads(Protocol):
    """Hold the newest signed checkpoint of one log.

    Raises:
        InputError: from every method, if the place cannot be read or written; the old head is then
            still there.
    """

    def create(self, note: bytes) -> None:
        """Store a log's first head; InputError if there is one already."""
        ...

    def read(self) -> bytes:
        """Return the signed head; InputError if it is missing."""
        ...

    def swap(self, expected: bytes, note: bytes) -> None:
        """Store a new head if the stored one is `expected`, else RefusedError (check `head`)."""
        ...

    def close(self) -> None:
        """Close what is open to reach it."""
        ...


class HeadStore:
    """Hold the newest signed checkpoint of one log in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")

    def create(self, note: bytes) -> None:
        """Store a log's first head.

        Raises:
            InputError: if there is a head already, or the file cannot be written.
        """
        with locked(self._lock):
            if self._path.exists():
                raise InputError(f"{self._path}: there is a signed head already")
            replace_file(self._path, note)

    def read(self) -> bytes:
        """Return the signed head.

        Raises:
            InputError: if it is missing: whoever signs without it may fork the log.
        """
        return read_file(self._path, MAX_NOTE_BYTES)

    def swap(self, expected: bytes, note: bytes) -> None:
        """Store a new head if the stored one is still `expected`.

        Raises:
            RefusedError: (check `head`) if another writer was faster.
            InputError: if the file cannot be read or written; the old head is then still there.
        """
        with locked(self._lock):
            if self.read() != expected:
                raise head_moved(str(self._path))
            replace_file(self._path, note)

    def close(self) -> None:
        """Return: between two calls no file is open."""


def head_moved(where: str) -> RefusedError:
    """Return the refusal of a head that was signed over another than the stored one."""
    return RefusedError(
        f"{where}: another writer has signed a newer head; open the log again", check="head"
    )
