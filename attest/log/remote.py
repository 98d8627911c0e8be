"""A log that somebody else serves, used like one of one's own: what is read is checked.

Records are handed in over HTTP and are the service's once it answers. Everything that is read comes
from published files and leads to a checkpoint that the log has signed and its witness cosigned.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from attest import canonical
from attest.checkpoint import Checkpoint
from attest.durable_file import make_directory, read_file, replace_file
from attest.envelope import Envelope
from attest.errors import FormatError, InputError
from attest.keys import VerifierKey
from attest.log.http_reader import HttpReader, Patience
from attest.log.http_witness import HttpWitness
from attest.log.layout import LogNames
from attest.log.published_log import PublishedLog, Seen
from attest.log.wire import MAX_BODY_BYTES, MAX_LINES, encode_lines, read_indices, read_object
from attest.note import MAX_NOTE_BYTES
from attest.rejections import RejectedError

PINNED = "remote.json"
_MAX_PINNED = 4096
_INDEX_HEADER = "anh-index"
_LINE = re.compile(rb'\{"index":(0|[1-9][0-9]{0,15}),"record":(.*)\}')
PATIENCE = Patience()
# How long to wait until a checkpoint covers what was handed in, and how long between two looks.
_COVER_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_ROOM = MAX_BODY_BYTES // 2


class RemoteLog:
    """Hand records to a served log, and read it with proofs.

    `directory` keeps the log's keys, which are taken from the service at the first contact and
    never again: whoever runs the log prints them, and a reader's policy names them. Every method
    may raise InputError where the service is away: nothing is lost then, and the call may be
    repeated; EquivocationError where the log has signed two histories.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        patience: Patience = PATIENCE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = HttpReader(url.rstrip("/"), patience, pause)
        self._pinned = directory / PINNED
        self._newest = directory / "newest"
        self._remembered = b""
        self._pause = pause
        self._reader: PublishedLog | None = None
        self._handed_in = 0
        if not self._pinned.exists():
            # Which log a run has is settled at its start, also where that log is away.
            make_directory(directory)
            replace_file(self._pinned, canonical.encode({"url": self._http.url}))

    @classmethod
    def open(cls, directory: Path) -> RemoteLog:
        """Open the log that a directory names.

        Raises:
            InputError: if there is no such file.
            FormatError: if it is damaged.
        """
        url = _fields(directory / PINNED).get("url")
        if not isinstance(url, str):
            raise FormatError(f"{directory / PINNED}: names no address", code="fields")
        return cls(url, directory)

    def close(self) -> None:
        """Do nothing: every question has a connection of its own."""

    def __enter__(self) -> RemoteLog:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Return the service's address."""
        return self._http.url

    @property
    def names(self) -> LogNames:
        """Return the keys of the log and of its own witness."""
        return self._published_log().names

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return self.names.origin

    @property
    def size(self) -> int:
        """Return how many records the newest published checkpoint covers."""
        return self._look().head.size

    def append(self, envelopes: Iterable[Envelope], *, keys: Iterable[bytes] = ()) -> list[int]:
        """Log records in order, and return their indices; what is logged already has its own.

        Raises:
            RejectedError: of the first that is refused; those before it are logged.
        """
        indices: list[int] = []
        heads = list(keys)
        for leaves in _portions([envelope.to_bytes() for envelope in envelopes], len(heads)):
            reply = self._http.post("/submit", encode_lines(leaves, heads))
            fields = read_object(reply.data)
            found = None if fields is None else read_indices(fields)
            if found is None or len(found) != len(leaves):
                raise InputError(f"{self.url}: the answer to a submission is none of ours")
            indices += found
            self._handed_in = max(self._handed_in, max(found, default=-1) + 1)
        return indices

    def unlogged(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Return those of a run's consecutive records that may not be in the log yet.

        They are logged in order only, so where the last one is, all are.
        """
        logged = envelopes and self.index_of(envelopes[-1].record_hash()) is not None
        return [] if logged else list(envelopes)

    def checkpoint(self) -> bytes:
        """Wait until a published checkpoint covers everything handed in here; return its note.

        Raises:
            InputError: if none does for long.
        """
        late = time.monotonic() + _COVER_SECONDS
        while (seen := self._look()).head.size < self._handed_in:
            if time.monotonic() > late:
                raise InputError(
                    f"{self.url}: has taken records, but no checkpoint covers them since "
                    f"{_COVER_SECONDS:.0f} s; ask its operator"
                )
            self._pause(_LOOK_SECONDS)
        return seen.note

    def published(self) -> bytes:
        """Return the newest published checkpoint."""
        return self._look().note

    def entry(self, index: int) -> Envelope:
        """Return one record that a published checkpoint covers."""
        return self._published_log().entry(index)

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        """Yield the records `start` to `stop` (excluded), which a published checkpoint covers."""
        return self._published_log().entries(start, stop)

    def about(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield the records that concern a run, rows included, with their indices, in order.

        Which records these are is the service's word: that none was left out shows by the run's own
        chain and by a monitor's status. Each is where it says it is.
        """
        return self._about(f"/run/{run}/records?from=")

    def notes(self, run: str) -> Iterator[tuple[int, Envelope]]:
        """Yield those of them that are no rows."""
        return self._about(f"/run/{run}/records?rows=no&from=")

    def index_of(self, record_hash: bytes) -> int | None:
        """Return the index of a record, None if it is not in the log."""
        try:
            reply = self._http.get(f"/record/{record_hash.hex()}")
        except RejectedError as error:
            if error.check == "absent":
                return None
            raise
        text = reply.headers.get(_INDEX_HEADER, "")
        if not text.isdecimal() or Envelope.from_bytes(reply.data).record_hash() != record_hash:
            raise InputError(f"{self.url}: gives another record than it was asked for")
        return int(text)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of an entry in the first `size` entries."""
        return self._published_log().inclusion(index, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` entries are a prefix of the first `new`."""
        return self._published_log().consistency(old, new)

    def hold_against(self, witness: HttpWitness) -> Checkpoint:
        """Compare what this log shows with the newest head that a witness has cosigned."""
        return self._published_log().hold_against(witness.newest(self.origin), witness.vkey)

    def checkpoint_of(self, size: int) -> bytes | None:
        """Return the published checkpoint of one size, None if the service has not kept it."""
        try:
            note = self._http.get(f"/checkpoint/{size}").data
        except RejectedError:
            return None
        head = Checkpoint.from_text(note.decode("utf-8", "replace").partition("\n\n")[0] + "\n")
        return note if head.size == size else None

    def _about(self, path: str) -> Iterator[tuple[int, Envelope]]:
        start, reader = 0, self._published_log()
        while lines := self._http.get(f"{path}{start}").data.splitlines():
            for line in lines:
                match = _LINE.fullmatch(line)
                if match is None or int(match[1]) < start:
                    raise InputError(f"{self.url}: the list of a run's records is none of ours")
                start = int(match[1]) + 1
                (leaf,) = reader.leaves(start - 1, start)
                if leaf != match[2]:
                    raise InputError(f"{self.url}: entry {start - 1} is another than it says")
                yield start - 1, Envelope.from_bytes(leaf)

    def _look(self) -> Seen:
        seen = self._published_log().look()
        if seen.note != self._remembered:
            # Read again tomorrow, the log has to extend what it shows today.
            replace_file(self._newest, seen.note)
            self._remembered = seen.note
        return seen

    def _published_log(self) -> PublishedLog:
        if self._reader is None:
            if self._newest.exists():
                self._remembered = read_file(self._newest, MAX_NOTE_BYTES)
            names = self._names()
            self._reader = PublishedLog(self._http.file, names, known=self._remembered)
        return self._reader

    def _names(self) -> LogNames:
        """Return the log's keys: those pinned, or at the first contact those that it gives."""
        fields = _fields(self._pinned)
        if "log" not in fields:
            told = read_object(self._http.get("/names").data) or {}
            names = _read_names(told, self.url)
            pinned = {"log": names.log.to_text(), "witness": names.witness.to_text()}
            replace_file(self._pinned, canonical.encode({"url": self.url, **pinned}))
            return names
        return _read_names(fields, str(self._pinned))


def _read_names(fields: dict[str, canonical.JSON], where: str) -> LogNames:
    log, witness = fields.get("log"), fields.get("witness")
    if not isinstance(log, str) or not isinstance(witness, str):
        raise FormatError(f"{where}: names no keys of a log and its witness", code="fields")
    return LogNames(VerifierKey.from_text(log), VerifierKey.from_text(witness))


def _fields(path: Path) -> dict[str, canonical.JSON]:
    value = canonical.decode(read_file(path, _MAX_PINNED), max_bytes=_MAX_PINNED)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: does not name a log", code="fields")
    return value


def _portions(leaves: Sequence[bytes], heads: int) -> Iterator[list[bytes]]:
    """Cut records into requests that a service takes."""
    portion: list[bytes] = []
    room = _ROOM
    for leaf in leaves:
        if portion and (room < len(leaf) or len(portion) + heads == MAX_LINES):
            yield portion
            portion, room = [], _ROOM
        portion.append(leaf)
        room -= len(leaf) + 1
    if portion:
        yield portion
