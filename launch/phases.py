"""The phases of a start-up, each with its seconds: what a newcomer waits for, line by line."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.attempt_files import AttemptFiles, append_line


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase that is over: what was done, how long it took, and who did it.

    `writer` is "driver", "group" (whoever forms the group) or a rank.
    """

    name: str
    seconds: float
    writer: str = "driver"


class PhaseLog:
    """Appends the phases that one process of a generation goes through."""

    def __init__(self, files: AttemptFiles, generation: str, writer: str) -> None:
        self._path = files.phases(generation, writer)
        self._writer = writer

    def add(self, name: str, seconds: float) -> None:
        """Note one phase."""
        line: dict[str, Any] = {"name": name, "seconds": round(seconds, 3)}
        append_line(self._path, line | {"writer": self._writer, "at": time.time()})


class PhaseReader:
    """Reads every process's phases as they come in."""

    def __init__(self, files: AttemptFiles) -> None:
        self._files = files
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[Phase]:
        """Yield the phases noted since the last call, in order of time.

        A line still being written waits. Each writer has a file of its own, and the order of files
        is not the order in which their lines were noted.
        """
        found = sorted(self._lines(), key=lambda value: float(value["at"]))
        for value in found:
            yield Phase(value["name"], value["seconds"], value["writer"])

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._files.folder.glob("*.phases.jsonl")):
            with path.open("rb") as stream:
                stream.seek(self._read.get(path, 0))
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    yield json.loads(line)
