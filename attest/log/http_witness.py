"""Witnesses elsewhere, asked over HTTP (C2SP tlog-witness) to cosign a log's heads.

A witness that is away, or refuses, holds nothing up: the head is published without its line, and it
is asked again later. What a witness answers is published only if it verifies: one bad line by a key
that a policy names would make readers refuse the whole checkpoint.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from attest.checkpoint import Checkpoint
from attest.cosignature import open_cosigned
from attest.durable_file import read_file, replace_file
from attest.errors import AttestError, FormatError, InputError, RefusedError
from attest.keys import ALG_COSIGNATURE, VerifierKey
from attest.log.http_reader import Reply, exchange
from attest.note import KeyName, Note, NoteSignature
from attest.witness_wire import ADD_CHECKPOINT, AddCheckpoint, decode_lines, decode_size, log_name

FILE = "witnesses"
ANSWER_SECONDS = 5.0
_MAX_FILE_BYTES = 64 << 10
_MOST = 32
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0
_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")

# Gives the consistency path from an older size to the head's.
PathTo = Callable[[int], Sequence[bytes]]


@dataclass(slots=True)
class HttpWitness:
    """Ask one witness; `trouble` is why it did not cosign the last time, empty if it did."""

    vkey: VerifierKey
    url: str
    clock: Callable[[], float] = time.monotonic
    trouble: str = ""
    _size: int = 0
    _pause: float = 0.0
    _not_before: float = 0.0

    @classmethod
    def from_text(cls, text: str) -> HttpWitness:
        """Read `VKEY URL`.

        Raises:
            FormatError: for anything else.
        """
        vkey, _, url = text.partition(" ")
        key = VerifierKey.from_text(vkey)
        if key.algorithm != ALG_COSIGNATURE or not _URL.fullmatch(url):
            raise FormatError(
                f"not a witness: {text[:160]!r}; write its vkey, a space and its address",
                code="witness",
            )
        return cls(key, url.rstrip("/"))

    def to_text(self) -> str:
        """Write `VKEY URL`."""
        return f"{self.vkey.to_text()} {self.url}"

    @property
    def due(self) -> bool:
        """Say whether it may be asked now: one that did not answer is left alone for a while."""
        return self.clock() >= self._not_before

    def ask(
        self, note: bytes, head: Checkpoint, log: VerifierKey, path: PathTo
    ) -> NoteSignature | None:
        """Return the witness's verified line under a head; None, and `trouble`, without one."""
        try:
            line = self._asked(note, head, path)
            signed = Note.from_bytes(note).signed_also(line).to_bytes()
            open_cosigned(signed, log, [self.vkey])
        except (AttestError, OSError, http.client.HTTPException, ValueError) as error:
            self.trouble = str(error) or type(error).__name__
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._not_before = self.clock() + self._pause
            return None
        self.trouble, self._pause, self._size = "", 0.0, head.size
        return line

    def newest(self, origin: str) -> bytes:
        """Return the newest head of a log that this witness shows; nothing of it is checked.

        Raises:
            InputError: if it shows none, or is away.
        """
        url = f"{self.url}/{log_name(origin)}/checkpoint"
        try:
            reply = exchange(url, None, "", ANSWER_SECONDS)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise InputError(f"{url}: gives no answer ({error}); try again later") from None
        if reply.status != 200:
            raise InputError(f"{url}: answers {reply.status}; does this witness know {origin}?")
        return reply.data

    def _asked(self, note: bytes, head: Checkpoint, path: PathTo) -> NoteSignature:
        reply = self._ask_from(min(self._size, head.size), note, path)
        if reply.status == 409:
            size = decode_size(reply.data)
            if size > head.size:
                raise RefusedError(
                    f"has cosigned {size} entries of {head.origin}, which has {head.size}: was the "
                    "log restored from an old copy?",
                    check="rollback",
                )
            reply = self._ask_from(size, note, path)
        if reply.status != 200:
            words = reply.data[:200].decode("ascii", "replace").strip()
            raise RefusedError(f"answers {reply.status}: {words}", check=str(reply.status))
        own = KeyName.of(self.vkey)
        lines = [line for line in decode_lines(reply.data) if line.signer == own]
        if len(lines) != 1:
            raise RefusedError("gives no line of its own", check="cosignature")
        return lines[0]

    def _ask_from(self, old: int, note: bytes, path: PathTo) -> Reply:
        body = AddCheckpoint(old, tuple(path(old)) if old else (), note).to_bytes()
        return exchange(self.url + ADD_CHECKPOINT, body, "text/plain", ANSWER_SECONDS)


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Ask several witnesses at once."""

    witnesses: tuple[HttpWitness, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> Witnesses:
        """Read the witnesses of a log's directory; none where it names none.

        Raises:
            FormatError: if a line names none, or one is named twice.
        """
        if not (directory / FILE).exists():
            return cls()
        lines = read_file(directory / FILE, _MAX_FILE_BYTES).decode("utf-8", "replace")
        return cls.of(lines.splitlines())

    @classmethod
    def of(cls, lines: Iterable[str]) -> Witnesses:
        """Read witnesses, each `VKEY URL`."""
        found = tuple(HttpWitness.from_text(line) for line in lines)
        if len({witness.vkey.public for witness in found}) != len(found) or len(found) > _MOST:
            raise FormatError(f"a witness is named twice, or more than {_MOST}", code="witness")
        return cls(found)

    def write(self, directory: Path) -> None:
        """Keep the witnesses in a log's directory."""
        lines = "".join(witness.to_text() + "\n" for witness in self.witnesses)
        replace_file(directory / FILE, lines.encode())

    def lacking(self, note: Note) -> list[HttpWitness]:
        """Return those that have not cosigned a note and may be asked now."""
        there = {line.signer for line in note.signatures}
        return [w for w in self.witnesses if KeyName.of(w.vkey) not in there and w.due]

    def cosign(
        self,
        asked: Sequence[HttpWitness],
        note: bytes,
        head: Checkpoint,
        log: VerifierKey,
        path: PathTo,
    ) -> list[NoteSignature]:
        """Return the lines that these give under a head, in their order."""
        if not asked:
            return []
        with ThreadPoolExecutor(len(asked), thread_name_prefix="witness") as pool:
            lines = pool.map(lambda witness: witness.ask(note, head, log, path), asked)
            return [line for line in lines if line is not None]
