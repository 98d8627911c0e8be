"""Exported files against the final record: the weights in hand are those the run ended with."""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from attest.check import hold
from attest.errors import InputError
from attest.statements import Final

__all__ = ["check_artifact"]


def check_artifact(artifact: Path, final: Final) -> int:
    """Check a directory of exactly the exported files, or one of them; return how many files.

    Raises:
        InputError: if a file cannot be read.
        RefusedError: (check `artifact`) for a file that is missing, changed, or not exported.
    """
    digests = {file.name: file.sha256 for file in final.files}
    hold(digests, "artifact", "the final record names no exported file")
    if not artifact.is_dir():
        _check_one(artifact, digests)
        return 1
    present = {path.relative_to(artifact).as_posix(): path for path in _files(artifact)}
    # A file beside the exported ones could be what a loader picks up.
    extra = min(present.keys() - digests.keys(), default=None)
    hold(extra is None, "artifact", f"{artifact} holds {extra}, which the run did not export")
    missing = min(digests.keys() - present.keys(), default=None)
    hold(missing is None, "artifact", f"{artifact} lacks {missing}, which the run exported")
    for name, path in sorted(present.items()):
        hold(_digest(path) == digests[name], "artifact", f"{path} is not the file exported")
    return len(present)


def _check_one(artifact: Path, digests: Mapping[str, str]) -> None:
    found = _digest(artifact)
    named = {digests[name] for name in digests if name.rpartition("/")[2] == artifact.name}
    hold(found in named, "artifact", f"{artifact} is no file that the run exported by this name")


def _files(directory: Path) -> Iterator[Path]:
    try:
        for path in sorted(directory.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield path
    except OSError as error:
        raise InputError(f"cannot read {directory}: {error.strerror}") from None


def _digest(path: Path) -> str:
    try:
        # Opening a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
