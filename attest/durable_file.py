"""Files that are either the old whole or the new whole, also after a power failure."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attest.errors import InputError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file durably: temporary file, fsync, rename, fsync of the directory.

    Raises:
        InputError: if the disk is full or fails; the old file, if any, is then still there.
    """
    # Writers of one path hold a lock, so a process has one temporary file of a name at most.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}; free or check the disk") from None


def create_files(contents: Mapping[Path, bytes]) -> set[Path]:
    """Write new files durably, all before any has its name; return those that exist already.

    A file that exists is left as it is. Half a file is never seen.

    Raises:
        InputError: if the disk is full or fails; some of the files may be there then.
    """
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    present: set[Path] = set()
    path = Path()
    try:
        for path, data in contents.items():
            temporaries[path].write_bytes(data)
        for path in contents:
            _sync(temporaries[path], os.O_RDONLY)
        for path in contents:
            try:
                # A link, unlike a rename, never takes the place of another writer's file.
                os.link(temporaries[path], path)
            except FileExistsError:
                present.add(path)
        for directory in {path.parent for path in contents}:
            _sync_directory(directory)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free or check the disk") from None
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink()
    return present


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably; one that exists is left as it is.

    Raises:
        InputError: if it cannot be made.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            _sync_directory(directory.parent)
    except OSError as error:
        raise InputError(f"cannot make directory {path}: {error.strerror}") from None


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole file of at most `max_bytes`.

    Raises:
        InputError: if it is missing, unreadable or larger.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > max_bytes:
        raise InputError(f"{path} is larger than {max_bytes} bytes")
    return data


def _sync_directory(path: Path) -> None:
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
