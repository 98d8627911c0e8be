"""A witness: remembers the largest tree of each log it knows, and cosigns only what extends it.

Source: C2SP tlog-witness (the checks of add-checkpoint, in its order; the status codes are in the
comments). What is signed has been made durable before: a witness that crashes and comes back never
signs less than before. A witness that has lost its memory refuses to sign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attest.checkpoint import Checkpoint, open_checkpoint
from attest.cosignature import cosign
from attest.durable_file import make_directory, read_file, replace_file
from attest.errors import EquivocationError, FormatError, InputError, RefusedError
from attest.file_lock import locked
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.merkle import verify_consistency
from attest.note import MAX_NOTE_BYTES, KeyName, Note, NoteSignature
from attest.witness_wire import MAX_PROOF_LINES, log_name

# How far the clock may have been set back before the witness stops: it never signs an earlier time.
_CLOCK_SLACK_SECONDS = 60
_MAX_STATE_BYTES = MAX_NOTE_BYTES + 64

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Memory:
    """Hold the newest head that was cosigned, and the time in that cosignature."""

    time: int
    note: bytes

    def size_and_root(self, log: VerifierKey) -> tuple[int, bytes]:
        if not self.note:
            return 0, b""
        head = open_checkpoint(self.note, log)
        return head.size, head.root


class Witness:
    """Cosign the heads of registered logs; several processes may share a directory.

    Raises:
        InputError: if the directory is no witness's, or another key's.
    """

    def __init__(self, directory: str | Path, key: PrivateKey, clock: Clock = time.time) -> None:
        self._directory = Path(directory)
        self._key = key
        self._clock = clock
        text = read_file(self._directory / "witness.vkey", 1024).decode("utf-8", "replace")
        self.vkey = VerifierKey.from_text(text.removesuffix("\n"))
        if self.vkey.public != key.public:
            raise InputError(f"{directory}: is the witness of another key than {key.keyid}")

    @classmethod
    def create(
        cls, directory: str | Path, key: PrivateKey, name: str, clock: Clock = time.time
    ) -> Witness:
        """Make a witness of this name that knows no log yet; an existing one is refused."""
        path = Path(directory) / "witness.vkey"
        make_directory(path.parent)
        if path.exists():
            raise InputError(f"{directory}: there is a witness already")
        vkey = VerifierKey(name, ALG_COSIGNATURE, key.public)
        replace_file(path, vkey.to_text().encode() + b"\n")
        return cls(directory, key, clock)

    def register(self, log: VerifierKey) -> None:
        """Take on a log, by the key that signs for its origin; nothing of it has been seen.

        Raises:
            InputError: if the log is known already, or the key is no log's.
        """
        if log.algorithm != ALG_ED25519 or log.public == self.vkey.public:
            raise InputError(f"{log.name}: is no log key (algorithm 0x01, not the witness's own)")
        with locked(self._directory / "lock"):
            path = self._path(log.name, "log.vkey")
            if path.exists():
                raise InputError(f"{log.name}: is known to this witness already")
            # Memory first: a registered log without memory is one whose memory was lost.
            self._remember(log.name, _Memory(0, b""))
            replace_file(path, log.to_text().encode() + b"\n")

    def size(self, origin: str) -> int:
        """Return the size of the newest cosigned head of a log, 0 if there is none."""
        return self._recall(origin).size_and_root(self._log(origin))[0]

    def newest(self, origin: str) -> bytes:
        """Return the newest head with the log's and this witness's lines, for monitors.

        Raises:
            InputError: if none was cosigned yet.
        """
        return read_file(self._path(origin, "checkpoint"), MAX_NOTE_BYTES)

    def newest_of(self, name: str) -> bytes:
        """Return the newest head of the log whose origin has this SHA-256 (64 hex digits).

        Raises:
            InputError: if none was cosigned yet.
        """
        return read_file(self._directory / f"{name}.checkpoint", MAX_NOTE_BYTES)

    def logs(self) -> list[VerifierKey]:
        """Return the logs that this witness knows, by origin."""
        files = sorted(self._directory.glob("*.log.vkey"))
        return sorted((_read_vkey(path) for path in files), key=lambda log: log.name)

    def cosign(self, old_size: int, proof: Sequence[bytes], note: bytes) -> NoteSignature:
        """Cosign a head that extends the newest one, of `old_size`, by a consistency proof.

        Raises:
            RefusedError: `check` is one of `origin`, `note signature`, `rollback`, `old size`,
                `consistency`, `clock`.
            EquivocationError: if the log has signed another root for the size; the evidence is the
                path of a file with both heads.
            FormatError: if the bytes are no checkpoint.
            InputError: if the witness's memory is lost or cannot be written; nothing is signed.
        """
        origin = Checkpoint.from_text(Note.from_bytes(note).text).origin
        with locked(self._directory / "lock"):
            log = self._log(origin)  # 404
            head = open_checkpoint(note, log)  # 403
            memory = self._recall(origin)
            self._check_extends(head, old_size, proof, note, memory)
            now = self._now(memory)
            self._remember(origin, _Memory(now, note))
            line = cosign(head.to_text(), self.vkey.name, self._key, now)
            signed = Note.from_bytes(note)
            logs_own = tuple(s for s in signed.signatures if s.signer == KeyName.of(log))
            served = Note(signed.text, (*logs_own, line))
            replace_file(self._path(origin, "checkpoint"), served.to_bytes())
            return line

    def _check_extends(
        self, head: Checkpoint, old_size: int, proof: Sequence[bytes], note: bytes, memory: _Memory
    ) -> None:
        size, root = memory.size_and_root(self._log(head.origin))
        # First of all, whatever the request says of itself: two roots of one size are evidence.
        if memory.note and size == head.size and root != head.root:
            raise EquivocationError(  # 422
                f"log {head.origin} signed two roots for size {size}; see "
                f"{self._keep_evidence(head.origin, memory.note, note)}",
                evidence=self._evidence_path(head.origin),
            )
        if not 0 <= old_size <= head.size:  # 400
            raise RefusedError(
                f"log {head.origin}: size {head.size} is below the old size {old_size}",
                check="rollback",
            )
        if old_size != size:  # 409
            raise RefusedError(
                f"log {head.origin}: the witness is at size {size}, not {old_size}",
                check="old size",
            )
        if len(proof) > MAX_PROOF_LINES:
            raise RefusedError("consistency proof is too long", check="consistency")
        if old_size == 0:
            if proof:
                raise RefusedError("size 0 needs no consistency proof", check="consistency")
            return
        verify_consistency(size, head.size, proof, root, head.root)  # 422

    def _now(self, memory: _Memory) -> int:
        now = int(self._clock())
        if now < memory.time - _CLOCK_SLACK_SECONDS:
            raise RefusedError(
                f"clock is {memory.time - now} s behind the last cosignature; set it right",
                check="clock",
            )
        return max(now, memory.time, 1)

    def _log(self, origin: str) -> VerifierKey:
        path = self._path(origin, "log.vkey")
        if not path.exists():
            raise RefusedError(f"log {origin!r} is unknown to this witness", check="origin")
        return _read_vkey(path)

    def _recall(self, origin: str) -> _Memory:
        try:
            data = read_file(self._path(origin, "memory"), _MAX_STATE_BYTES)
        except InputError as error:
            raise InputError(f"witness has lost its memory of log {origin!r}: {error}") from None
        text, _, note = data.partition(b"\n")
        try:
            return _Memory(int(text), note)
        except ValueError:
            raise FormatError(
                f"witness memory of log {origin!r} is damaged", code="memory"
            ) from None

    def _remember(self, origin: str, memory: _Memory) -> None:
        replace_file(self._path(origin, "memory"), b"%d\n" % memory.time + memory.note)

    def _keep_evidence(self, origin: str, first: bytes, second: bytes) -> Path:
        path = self._evidence_path(origin)
        if not path.exists():
            replace_file(path, first + second)
        return path

    def _evidence_path(self, origin: str) -> Path:
        return self._path(origin, "fork")

    def _path(self, origin: str, kind: str) -> Path:
        return self._directory / f"{log_name(origin)}.{kind}"


def _read_vkey(path: Path) -> VerifierKey:
    return VerifierKey.from_text(read_file(path, 1024).decode("utf-8", "replace")[:-1])
