"""The files below D/attempts through which a run's processes talk, and how they are written.

The run directory is the one thing that the driver and every worker share whatever starts them, so
requests, grants, start-up phases and the wish to stop travel as small files in it. A group of
workers is named by its *generation*: whoever forms a group announces it first, and every file
carries the name, so what a dead group left behind can never be taken for the living one's.
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anh_jax.run_directory import write_atomically
from launch.errors import CommandError

MAX_BYTES = 1 << 20
_SUFFIXES = ("request.json", "claim", "grant.json", "refusal.json", "phases.jsonl", "stop.json")


class AttemptFileError(CommandError):
    """Report a file below attempts/ that is not what its writer would have written."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One group of workers: a random name, its place in the run's groups from 0, its size."""

    name: str
    index: int
    processes: int


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """The files of one run's attempts/ folder."""

    folder: Path

    def request(self, generation: str, rank: int) -> Path:
        """Return where a rank's request lies."""
        return self.folder / f"{generation}-{rank}.request.json"

    def requests(self, generation: str) -> tuple[Path, ...]:
        """Return every request of a generation that has been written, whatever its rank."""
        return tuple(sorted(self.folder.glob(f"{generation}-*.request.json")))

    def claim(self, generation: str, rank: int) -> Path:
        """Return the file that a worker makes, and only one can, to take a rank."""
        return self.folder / f"{generation}-{rank}.claim"

    def grant(self, generation: str) -> Path:
        """Return where the grant of a generation lies; all its ranks read the same one."""
        return self.folder / f"{generation}.grant.json"

    def refusal(self, generation: str) -> Path:
        """Return where the reason lies for which a generation gets no grant."""
        return self.folder / f"{generation}.refusal.json"

    def phases(self, generation: str, writer: str) -> Path:
        """Return the start-up phases that one writer saw."""
        return self.folder / f"{generation}-{writer}.phases.jsonl"

    def calls(self, generation: str, rank: int) -> Path:
        """Return how often a rank had asked whether to stop when it learnt that it should."""
        return self.folder / f"{generation}-{rank}.stop.json"

    def stopped(self, generation: str) -> Path:
        """Return the mark that a generation stopped because it was asked to."""
        return self.folder / f"{generation}.stop.json"

    @property
    def generation(self) -> Path:
        """Return the file that names the living generation."""
        return self.folder / "generation.json"

    def clear(self) -> None:
        """Make the folder, without anything that an earlier driver's groups left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path == self.generation or path.name.endswith(_SUFFIXES):
                path.unlink(missing_ok=True)

    def announce(self, processes: int) -> Generation:
        """Name a new group of `processes` workers; every earlier generation is over from here.

        Only whoever forms groups calls this, one group at a time, before any worker of the new
        group asks for its attempt.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self.living()
        index = 0 if before is None else before.index + 1
        generation = Generation(name=secrets.token_hex(8), index=index, processes=processes)
        write_json(
            self.generation,
            {"name": generation.name, "index": index, "processes": processes},
        )
        return generation

    def living(self) -> Generation | None:
        """Return the generation announced last, or None before the first."""
        found = read_json(self.generation)
        if found is None:
            return None
        try:
            name, index, processes = found["name"], found["index"], found["processes"]
        except (KeyError, TypeError) as error:
            raise AttemptFileError(f"{self.generation}: not a generation; remove it") from error
        return Generation(name=name, index=index, processes=processes)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by the JSON text of `value`, all at once."""
    write_atomically(path, json.dumps(value, sort_keys=True).encode())


def read_bytes(path: Path) -> bytes | None:
    """Return a file's bytes, or None where there is no such file; oversized files are refused."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > MAX_BYTES:
        raise AttemptFileError(f"{path}: larger than {MAX_BYTES} bytes; remove it")
    return data


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no such file."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError as error:
        raise AttemptFileError(f"{path}: not JSON; remove it") from error
    if not isinstance(value, dict):
        raise AttemptFileError(f"{path}: not a JSON object; remove it")
    return value


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Add one JSON line with a single write, so that a reader sees whole lines only."""
    line = json.dumps(value, sort_keys=True).encode() + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
