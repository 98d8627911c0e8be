import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attest.envelope import Envelope, sign, verify_signatures
from attest.errors import InputError
from attest.keys import PrivateKey
from attest.step_file import StepFile, SyncPolicy, read, recover

KEY = PrivateKey(bytes(32))
EVERY_RECORD = SyncPolicy(records=1)


def envelope(number: int) -> Envelope:
    return sign(b'{"step":%d}' % number, [KEY])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1-0.jsonl"


def write(path: Path, numbers: range) -> None:
    with StepFile(path) as file:
        for number in numbers:
            file.append(envelope(number))


def payloads(path: Path) -> list[bytes]:
    return [e.payload for e in read(path)]


def expected(numbers: range) -> list[bytes]:
    return [b'{"step":%d}' % number for number in numbers]


class Disk:
    """Count syncs and fail on demand, in place of the system calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.fail_sync = False
        self.room: int | None = None
        self._write, self._sync = os.write, os.fdatasync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def write(self, descriptor: int, data) -> int:
        if self.room is None:
            return self._write(descriptor, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, bytes(data)[: self.room])
        self.room -= written
        return written

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.fail_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_records_are_synced_in_groups(path: Path, disk: Disk) -> None:
    with StepFile(path, SyncPolicy(records=4, seconds=1000)) as file:
        for number in range(10):
            file.append(envelope(number))
        assert disk.syncs == 2
    assert disk.syncs == 3


def test_a_record_after_a_pause_is_synced_at_once(path: Path, disk: Disk) -> None:
    with StepFile(path, SyncPolicy(records=1000, seconds=0.01)) as file:
        for number in range(3):
            time.sleep(0.02)
            file.append(envelope(number))
            assert disk.syncs == number + 1


def test_syncing_nothing_asks_nothing_of_the_disk(path: Path, disk: Disk) -> None:
    with StepFile(path, EVERY_RECORD) as file:
        file.append(envelope(0))
        file.sync()
        file.sync()
    assert disk.syncs == 1


def test_short_writes_are_completed(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda d, data: disk.write(d, bytes(data)[:7]))
    write(path, range(3))
    assert payloads(path) == expected(range(3))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_keeps_earlier_lines_and_ends_the_file(
    path: Path, disk: Disk, room: int
) -> None:
    with StepFile(path, EVERY_RECORD) as file:
        for number in range(3):
            file.append(envelope(number))
        disk.room = room
        for _ in range(2):
            with pytest.raises(InputError) as failure:
                file.append(envelope(3))
            assert "No space left" in str(failure.value)
            assert str(path) in str(failure.value)
        # Room again: still no line, since the caller may have dropped the one that failed.
        disk.room = None
        with pytest.raises(InputError):
            file.append(envelope(4))
    assert path.read_bytes() == b"".join(envelope(i).to_bytes() + b"\n" for i in range(3))
    write(path, range(3, 4))
    assert payloads(path) == expected(range(4))


def test_a_full_disk_still_syncs_the_earlier_lines(path: Path, disk: Disk) -> None:
    file = StepFile(path, SyncPolicy(records=1000, seconds=1000))
    file.append(envelope(0))
    disk.room = 10
    with pytest.raises(InputError):
        file.append(envelope(1))
    assert disk.syncs == 1
    file.close()


def test_a_full_disk_that_cannot_even_cut_leaves_a_torn_line(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with StepFile(path) as file:
        file.append(envelope(0))
        disk.room = 10
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(InputError) as failure:
                file.append(envelope(1))
        assert "torn line" in str(failure.value)
    assert payloads(path) == expected(range(1))
    assert recover(path) == 10


def test_a_failed_sync_is_not_retried(path: Path, disk: Disk) -> None:
    # After a failed fsync the kernel may drop the pages and report success the next time.
    file = StepFile(path, EVERY_RECORD)
    disk.fail_sync = True
    with pytest.raises(InputError):
        file.append(envelope(0))
    disk.fail_sync = False
    for use in (file.sync, lambda: file.append(envelope(1))):
        with pytest.raises(InputError):
            use()
    file.close()
    assert disk.syncs == 1


def test_names_and_cuts_are_made_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, synced = os.fsync, []

    def watch(descriptor: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    file = StepFile(path)
    assert synced == ["directory"]
    file.close()
    path.write_bytes(b"torn")
    recover(path)
    assert synced == ["directory", "file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
def test_no_descriptor_is_left_open(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with StepFile(path):
        for attempt in (lambda: StepFile(path), lambda: recover(path)):
            with pytest.raises(InputError):
                attempt()
        assert len(os.listdir("/proc/self/fd")) == before + 1
    path.write_bytes(b"torn")
    with pytest.raises(InputError):
        StepFile(path)
    recover(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_the_full_device_gives_an_input_error() -> None:
    with pytest.raises(InputError) as failure, StepFile("/dev/full") as file:
        file.append(envelope(0))
    assert "No space left" in str(failure.value)


LIMITED = """
import resource, signal, sys
from attest.envelope import sign
from attest.errors import InputError
from attest.keys import PrivateKey
from attest.step_file import StepFile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
key = PrivateKey(bytes(32))
file = StepFile(sys.argv[1])
number = 0
try:
    while True:
        file.append(sign(b'{"step":%d}' % number, [key]))
        number += 1
except InputError as error:
    print(number)
    print(error)
"""


def test_a_file_that_the_kernel_stops_growing_keeps_every_acknowledged_line(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    number, message = run.stdout.splitlines()
    assert "cannot write" in message
    assert int(number) > 10
    assert payloads(path) == expected(range(int(number)))
    assert path.read_bytes().endswith(b"\n")


WRITER = """
import sys
from attest.envelope import sign
from attest.keys import PrivateKey
from attest.step_file import StepFile

key = PrivateKey(bytes(32))
first = int(sys.argv[2])
file = StepFile(sys.argv[1])
number = first
while True:
    file.append(sign(b'{"step":%d,"filler":"%s"}' % (number, b"x" * 20_000), [key]))
    number += 1
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_killed_writer_loses_no_acknowledged_record(path: Path) -> None:
    acknowledged = 0
    for kill_after in (0.0, 0.005, 0.02, 0.05, 0.1):
        if path.exists():
            recover(path)
        found = len(payloads(path)) if path.exists() else 0
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(found)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(kill_after)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        acknowledged = int([line for line in lines if line.endswith(b"\n")][-1])
        envelopes = list(read(path))
        # One more than acknowledged may be there: killed between append and print.
        assert acknowledged <= len(envelopes) <= acknowledged + 1
        for number, kept in enumerate(envelopes):
            assert kept.payload.startswith(b'{"step":%d,' % number)
            verify_signatures(kept, {KEY.keyid: KEY.public})
    assert acknowledged > 5
