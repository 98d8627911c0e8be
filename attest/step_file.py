"""The step file: where one host keeps what it has signed, one envelope a line.

Only ever appended to. A killed process loses nothing that `append` returned for; a lost machine
loses at most what the sync policy leaves open. The shipper copies the lines to the log.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from attest.envelope import MAX_ENVELOPE_BYTES, Envelope
from attest.errors import FormatError, InputError


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """Bound what a power failure may take: so many records, or those of so many seconds."""

    records: int = 32
    seconds: float = 0.05


class StepFile:
    """Append one-signature envelopes to a file that one process holds at a time.

    Raises:
        InputError: if the file cannot be opened, is held by another process, or ends in a torn
            line (`recover` cuts it off).
    """

    def __init__(self, path: str | Path, sync: SyncPolicy | None = None) -> None:
        self._path = Path(path)
        self._policy = sync or SyncPolicy()
        self._descriptor = _open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._end = os.fstat(self._descriptor).st_size
        self._open_records = 0
        self._synced_at = time.monotonic()
        self._broken = ""
        try:
            if self._end and os.pread(self._descriptor, 1, self._end - 1) != b"\n":
                raise InputError(f"{path}: ends in a torn line; recover the file first")
            _sync_directory(self._path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, envelope: Envelope) -> None:
        """Write one envelope; on return it survives this process, and soon a power failure.

        Raises:
            FormatError: if the envelope has not exactly one signature.
            InputError: if the disk is full or fails; earlier lines stay whole, and the file takes
                no further line.
        """
        self._check_usable()
        if len(envelope.signatures) != 1:
            raise FormatError(
                f"{self._path}: a step file takes one signature, not {len(envelope.signatures)}",
                code="signature count",
            )
        line = envelope.to_bytes() + b"\n"
        try:
            _write_all(self._descriptor, line)
        except OSError as error:
            tail = self._drop_tail()
            self.sync()  # the earlier lines were acknowledged
            raise self._fail(f"cannot write: {error.strerror}{tail}; free the disk") from None
        self._end += len(line)
        self._open_records += 1
        waited = time.monotonic() - self._synced_at
        if self._open_records >= self._policy.records or waited >= self._policy.seconds:
            self.sync()

    def sync(self) -> None:
        """Make every appended line survive a power failure (fdatasync).

        Raises:
            InputError: if the disk fails. The kernel may then have dropped the lines it held, so
                the file takes no further line.
        """
        self._check_usable()
        if self._open_records:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                raise self._fail(f"cannot sync: {error.strerror}; check the disk") from None
        self._open_records = 0
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close; closing twice is allowed."""
        if self._descriptor < 0:
            return
        try:
            if not self._broken:
                self.sync()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "StepFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._descriptor < 0:
            raise InputError(f"{self._path}: is closed")
        if self._broken:
            raise InputError(self._broken)

    def _fail(self, what: str) -> InputError:
        self._broken = f"{self._path}: {what}"
        return InputError(self._broken)

    def _drop_tail(self) -> str:
        """Cut off half a line; where even that fails, readers ignore it as a torn tail."""
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            return f" (and cannot cut the torn line: {error.strerror})"
        return ""


@dataclass(frozen=True, slots=True)
class Line:
    """Hold one envelope and the byte offset just after its line: where to read on from."""

    envelope: Envelope
    end: int


def read(path: str | Path) -> Iterator[Envelope]:
    """Yield the envelopes of a step file, also of one that is being written.

    A last line without its newline was never acknowledged and is ignored.

    Raises:
        InputError: if the file cannot be read.
        FormatError: for any other damage, naming file and line.
    """
    for line in read_lines(path):
        yield line.envelope


def read_lines(path: str | Path, *, start: int = 0) -> Iterator[Line]:
    """Yield the lines of a step file from a byte offset on, as `read` does.

    `start` is 0 or the `end` of a line read before.
    """
    after = f" after byte {start}" if start else ""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            number, end = 0, start
            while line := file.readline(MAX_ENVELOPE_BYTES + 1):
                number += 1
                end += len(line)
                where = f"{path}, line {number}{after}"
                if line.endswith(b"\n"):
                    yield Line(_parse(line, where), end)
                elif len(line) > MAX_ENVELOPE_BYTES:
                    raise FormatError(f"{where}: too long for an envelope", code="too large")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def recover(path: str | Path) -> int:
    """Cut off a torn last line, durably; returns how many bytes were dropped.

    Raises:
        InputError: if the file is missing, unwritable, or held by a writer.
    """
    path = Path(path)
    descriptor = _open(path, os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        end = _after_last_newline(descriptor, size)
        if end < size:
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
        return size - end
    except OSError as error:
        raise InputError(f"cannot recover {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _parse(line: bytes, where: str) -> Envelope:
    try:
        envelope = Envelope.from_bytes(line[:-1])
    except FormatError as error:
        raise FormatError(f"{where}: {error}", code=error.code) from None
    if len(envelope.signatures) != 1:
        raise FormatError(f"{where}: more than one signature", code="signature count")
    return envelope


def _open(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InputError(f"{path}: another process is writing it; stop that one first") from None
    return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    """Make a new file's name durable: without it the file itself can vanish."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise InputError(f"cannot sync the directory of {path}: {error.strerror}") from None


def _after_last_newline(descriptor: int, size: int) -> int:
    end = size
    while end:
        start = max(0, end - 65_536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
