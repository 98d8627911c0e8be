"""Where a log's files lie for readers: what is asked of such a place, and one in a directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from attest.durable_file import create_files, make_directory, read_file, replace_file
from attest.errors import RefusedError
from attest.tiles import CHECKPOINT_PATH, MAX_BUNDLE_BYTES, TileFile


class Tiles(Protocol):
    """Keep the files of one log where readers find them; no file is ever given another content.

    Raises:
        InputError: from every method, if the place cannot be read or written.
    """

    def read(self, path: str) -> bytes:
        """Return one file; InputError if it is missing."""
        ...

    def has(self, path: str) -> bool:
        """Say whether there is a file at a path."""
        ...

    def write(self, files: Sequence[TileFile]) -> None:
        """Write files durably; a full one makes its partial forerunners disappear.

        RefusedError (check `tile`) if there is another file at a path already.
        """
        ...

    def names(self) -> Iterator[str]:
        """List the paths of all tiles and bundles there are, in no order."""
        ...

    def publish(self, note: bytes) -> None:
        """Replace the checkpoint that readers see, durably."""
        ...


@dataclass(frozen=True, slots=True)
class TileDirectory:
    """Keep the files of one log under a directory, as a static server would serve them."""

    root: Path

    def read(self, path: str) -> bytes:
        """Return one file.

        Raises:
            InputError: if it is missing.
        """
        return read_file(self.root / path, MAX_BUNDLE_BYTES)

    def has(self, path: str) -> bool:
        """Say whether there is a file at a path."""
        return (self.root / path).is_file()

    def write(self, files: Sequence[TileFile]) -> None:
        """Write files durably; a full one makes its partial forerunners disappear.

        Raises:
            InputError: if the disk is full or fails.
            RefusedError: (check `tile`) if there is another file at a path already.
        """
        for directory in {(self.root / file.path).parent for file in files}:
            make_directory(directory)
        present = create_files({self.root / file.path: file.data for file in files})
        for file in files:
            path = self.root / file.path
            if path in present and self.read(file.path) != file.data:
                raise tile_differs(file.path)
            if not path.parent.name.endswith(".p"):
                shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)

    def names(self) -> Iterator[str]:
        """List the paths of all files there are, in no order."""
        for folder, _, names in os.walk(self.root / "tile"):
            inside = Path(folder).relative_to(self.root).as_posix()
            yield from (f"{inside}/{name}" for name in names if not name.startswith("."))

    def publish(self, note: bytes) -> None:
        """Replace the checkpoint that readers see, durably."""
        replace_file(self.root / CHECKPOINT_PATH, note)


def tile_differs(path: str) -> RefusedError:
    """Return the refusal to write over a file that holds something else."""
    return RefusedError(
        f"log file {path} is there already and is not what the entries give: it was altered, or "
        "another log writes here",
        check="tile",
    )
