"""Locks between processes and threads, that end with whoever holds them."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from attest.errors import InputError

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.002


@contextmanager
def locked(path: Path, *, wait_seconds: float = _WAIT_SECONDS) -> Generator[None, None, None]:
    """Hold the lock file at a path (flock): a killed process never leaves it locked.

    Raises:
        InputError: if the file cannot be opened, or somebody holds it for longer than the wait.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"cannot lock {path}: {error.strerror}") from None
    try:
        _take(descriptor, path, time.monotonic() + wait_seconds)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise InputError(
                    f"{path}: another process holds it; stop that one or wait"
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return
