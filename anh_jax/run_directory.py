"""The run directory: where each file of a run lives, and how it is written without being torn.

Everything a run leaves behind is below one folder, whose layout users meet:

    contract.json     the canonical contract
    config.yaml       the resolved experiment
    programs/         StableHLO blobs, signatures, constants, rules, plan
    data/             leaf hashes of the examples
    statements/       signed envelopes: contract, genesis, attempt-<n>, final
    steps/            signed rows, <attempt>-<rank>.jsonl; segments, <attempt>-segments.jsonl
    keys/             private keys, mode 0600
    log/              the local log
    checkpoints/      training checkpoints (Orbax)
    retained/         an own loop's gradients and states, <step>.safetensors
    export/           safetensors
    attempts/         requests and grants of attempts
    metrics.jsonl, policy.toml, run.proof, report.html
"""

import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from anh_jax.errors import AnhError
from attest import canonical
from attest.envelope import Envelope
from attest.keys import PrivateKey
from attest.segment import segment_file

_FOLDERS = ("programs", "data", "statements", "steps", "keys", "checkpoints", "export", "attempts")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably and all at once.

    The bytes are synced before the rename and the folder after it, so that a crash leaves either
    the old file or the new one. Raises AnhError where the folder cannot be written or is full.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise AnhError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another --run-dir"
        ) from error


def _unmake(root: Path, made: list[Path]) -> None:
    # `create` found nothing in the root, so everything in it came after.
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for folder in made:
        if any(folder.iterdir()):
            return
        folder.rmdir()


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> "RunDirectory":
        """Make the folders of a new run; refuse a folder that already holds something."""
        if root.exists() and any(root.iterdir()):
            raise AnhError(
                f"{root}: holds files already; name another folder (a run of 'anh train' that was "
                f"stopped goes on with 'anh resume {root}')"
            )
        try:
            for folder in _FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
            (root / "keys").chmod(0o700)
        except OSError as error:
            raise AnhError(
                f"{root}: cannot be made ({error.strerror}); choose another --run-dir"
            ) from error
        return cls(root)

    @classmethod
    @contextmanager
    def prepared(cls, root: Path) -> "Generator[RunDirectory, None, None]":
        """Make a new run for the block to prepare; without a contract.json at its end, unmake it.

        What is unmade is only what did not exist before.
        """
        made = [path for path in (root, *root.parents) if not path.exists()]
        run = cls.create(root)
        try:
            yield run
        except BaseException:
            if not (root / "contract.json").exists():
                _unmake(root, made)
            raise

    @classmethod
    def open(cls, root: Path) -> "RunDirectory":
        """Open an existing run; raises AnhError where there is none."""
        if not root.is_dir():
            raise AnhError(f"{root}: no such run directory; 'anh train CONFIG' makes one")
        if not (root / "contract.json").is_file():
            raise AnhError(
                f"{root}: holds no contract.json, so it is no run directory of anh train"
            )
        return cls(root)

    @property
    def programs(self) -> Path:
        """Return the folder of the contract's programs."""
        return self.root / "programs"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the training checkpoints."""
        return self.root / "checkpoints"

    @property
    def retained(self) -> Path:
        """Return the folder of the gradients and states that an own loop keeps for auditors."""
        return self.root / "retained"

    @property
    def export(self) -> Path:
        """Return the folder of the exported weights."""
        return self.root / "export"

    @property
    def data(self) -> Path:
        """Return the folder that caches the example leaf hashes."""
        return self.root / "data"

    @property
    def metrics(self) -> Path:
        """Return the metrics file: one JSON object a step."""
        return self.root / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """Return the folder of the run's local log."""
        return self.root / "log"

    @property
    def stop_request(self) -> Path:
        """Return the file whose presence asks every worker to checkpoint and stop."""
        return self.root / "stop"

    def key_path(self, name: str) -> Path:
        """Return where the private key called `name` lies."""
        return self.root / "keys" / name

    def key(self, name: str) -> PrivateKey:
        """Read one of the run's private keys."""
        return PrivateKey.load(self.key_path(name))

    def step_file(self, *, attempt: int, rank: int) -> Path:
        """Return the append-only file of one host's signed rows in one attempt."""
        return self.root / "steps" / f"{attempt}-{rank}.jsonl"

    def segment_file(self, *, attempt: int) -> Path:
        """Return the append-only file of the segments that an attempt's first worker signed."""
        return segment_file(self.root / "steps", attempt)

    def contract(self) -> dict[str, Any]:
        """Return the contract's JSON object; raises FormatError where it is not canonical."""
        return cast("dict[str, Any]", canonical.decode(self.contract_bytes(), max_bytes=1 << 16))

    def contract_bytes(self) -> bytes:
        """Read the bytes whose SHA-256 is the contract id."""
        return (self.root / "contract.json").read_bytes()

    def statement_path(self, name: str) -> Path:
        """Return where the signed statement called `name` lies."""
        return self.root / "statements" / f"{name}.json"

    def write_statement(self, name: str, envelope: Envelope) -> None:
        """Keep a signed statement as the bytes that the log will hash."""
        write_atomically(self.statement_path(name), envelope.to_bytes())

    def statement(self, name: str) -> Envelope:
        """Read a signed statement; raises AnhError where it is missing."""
        path = self.statement_path(name)
        try:
            return Envelope.from_bytes(path.read_bytes())
        except FileNotFoundError as error:
            raise AnhError(f"{path}: missing; the run was stopped before it was signed") from error

    def has_statement(self, name: str) -> bool:
        """Tell whether the statement called `name` has been signed."""
        return self.statement_path(name).is_file()

    def attempts(self) -> tuple[int, ...]:
        """Return the numbers of the attempts signed so far, ascending."""
        names = (path.stem for path in (self.root / "statements").glob("attempt-*.json"))
        return tuple(sorted(int(name.removeprefix("attempt-")) for name in names))

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics rows, leaving out a torn last line."""
        if not self.metrics.exists():
            return
        with self.metrics.open("r", encoding="utf-8") as stream:
            for line in stream:
                if line.endswith("\n"):
                    yield json.loads(line)
