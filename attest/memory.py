"""What a client remembers: the newest checkpoint of each log it has read from.

One file per log origin in a state directory, replaced atomically. A log that shows another root at
a remembered size, or a tree that does not extend the remembered one, has equivocated: both signed
heads go into an evidence file that anyone can check.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from attest.check import refuse
from attest.checkpoint import Checkpoint, open_checkpoint
from attest.durable_file import make_directory, read_file, replace_file
from attest.equivocation import encode_evidence
from attest.errors import (
    AttestError,
    EquivocationError,
    FormatError,
    InputError,
    RefusedError,
)
from attest.file_lock import locked
from attest.head import Head
from attest.inclusion import ProvenRecords
from attest.keys import VerifierKey
from attest.merkle import verify_consistency
from attest.note import MAX_NOTE_BYTES
from attest.proof import RunProof

__all__ = ["ConsistencySource", "Memory", "Remembered"]

# Gives the RFC 6962 consistency path from an older to a newer size: `LocalLog.consistency`, say.
ConsistencySource = Callable[[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """Hold a remembered checkpoint: its note, and what the log signed in it."""

    note: bytes
    checkpoint: Checkpoint


class Memory:
    """Keep the newest checkpoint per log in a directory, made if it is missing.

    `consistency` says where paths between checkpoints come from, beside the proof itself.
    `writing_seconds` is what waiting for the disk has taken.

    Raises:
        InputError: if the directory cannot be used.
    """

    def __init__(self, directory: str | Path, consistency: ConsistencySource | None = None) -> None:
        self._directory = Path(directory)
        self._consistency = consistency
        self.writing_seconds = 0.0
        make_directory(self._directory)

    def newest(self, log: VerifierKey) -> Remembered | None:
        """Return the remembered checkpoint of a log, signed by this key; None at first.

        Raises:
            InputError: if the file cannot be read or was signed by another key.
        """
        path = self._path(log.name)
        if not path.exists():
            return None
        note = read_file(path, MAX_NOTE_BYTES)
        try:
            return Remembered(note, open_checkpoint(note, log))
        except AttestError as error:
            raise InputError(
                f"{path} is no checkpoint by the policy's log key ({error}); move it away if the "
                "log's key was changed"
            ) from None

    def check_head(self, head: Head, log: VerifierKey) -> None:
        """Compare a signed head with the remembered one, if both are of one size.

        Raises:
            EquivocationError: if their roots differ; the evidence is in a file by then.
        """
        old = self.newest(log)
        if old is not None:
            self._check_same_size(old, head)

    def check_history(self, proven: ProvenRecords, log: VerifierKey) -> str:
        """Check the log's growth since it was remembered, then remember the newer head.

        Returns what was found, in words; "" if the older head is proven a prefix of the newer. A
        head that is not proven consistent is never remembered over another.

        Raises:
            EquivocationError: if the remembered tree is proven not to be a prefix.
            RefusedError: (check `history`) if a given path does not hold.
        """
        with locked(self._directory / "lock"):
            old = self.newest(log)
            head = proven.head
            if old is None:
                self._remember(log, head)
                return "this is the first checkpoint of the log seen here"
            size, new_size = old.checkpoint.size, head.checkpoint.size
            if size == new_size:
                self._check_same_size(old, head)
            elif not self._proven(old, proven):
                return f"nothing ties size {new_size} to the remembered size {size}"
            elif new_size > size:
                self._remember(log, head)
            return ""

    def _remember(self, log: VerifierKey, head: Head) -> None:
        # Durable writes wait for the disk; how long is kept apart from what checking takes.
        start = time.perf_counter()
        replace_file(self._path(log.name), head.note)
        self.writing_seconds += time.perf_counter() - start

    def _check_same_size(self, remembered: Remembered, head: Head) -> None:
        old, new = remembered.checkpoint, head.checkpoint
        if old.size == new.size and old.root != new.root:
            self._accuse(remembered, head, None)

    def _proven(self, remembered: Remembered, proven: ProvenRecords) -> bool:
        old, new = remembered.checkpoint, proven.head.checkpoint
        # The proof computes its head's root through this prefix: another root is another history.
        prefix = proven.fold.prefixes.get(old.size)
        if old.size == 0 or prefix == old.root:
            return True
        if prefix is not None:
            self._accuse(remembered, proven.head, proven.proof)
        if self._consistency is None:
            return False
        first, second = (old, new) if old.size < new.size else (new, old)
        try:
            path = self._consistency(first.size, second.size)
            verify_consistency(first.size, second.size, path, first.root, second.root)
        except (FormatError, RefusedError) as error:
            refuse("history", f"from size {first.size} to {second.size}: {error}")
        return True

    def _accuse(self, old: Remembered, head: Head, proof: RunProof | None) -> NoReturn:
        """Write both heads, and the proof whose nodes tie them together if sizes differ."""
        data = encode_evidence(old.note, head.note, proof)
        name = f"equivocation-{hashlib.sha256(data).hexdigest()[:16]}.json"
        path = self._directory / name
        replace_file(path, data)
        raise EquivocationError(
            f"log {head.checkpoint.origin} signed two histories, at sizes {old.checkpoint.size} "
            f"and {head.checkpoint.size}; evidence in {path}",
            evidence=path,
        )

    def _path(self, origin: str) -> Path:
        return self._directory / f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"
