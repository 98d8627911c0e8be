"""Makes logs, and serves them: the log operator's side of `anh log`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attest.checkpoint import Checkpoint
from attest.errors import AttestError
from attest.file_lock import locked
from attest.keys import PrivateKey
from attest.log.house import House
from attest.log.http_witness import Witnesses
from attest.log.layout import LogNames
from attest.log.places import Places
from attest.log.quota import Rate
from attest.log.sequencer import LocalLog
from attest.note import Note
from launch.errors import CommandError

if TYPE_CHECKING:
    from launch.http_server import Place

_BURST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often heads are published; how many records a second a key and an address may bring."""

    checkpoint_seconds: float
    key_rate: float
    address_rate: float


def make_log(
    directory: Path, origin: str, *, places: Places | None = None, witnesses: Sequence[str] = ()
) -> LogNames:
    """Make an empty log with keys of its own in a directory that holds nothing.

    `places` are where its parts lie, `witnesses` those elsewhere to ask for cosignatures, each as
    `VKEY URL`.

    Raises InputError where it holds something, FormatError for a name that is no origin.
    """
    if directory.exists() and any(directory.iterdir()):
        raise CommandError(f"{directory}: is not empty; give the log a directory of its own")
    others = Witnesses.of(witnesses)
    keys = {name: PrivateKey.generate() for name in ("log", "witness")}
    (directory / "keys").mkdir(parents=True, mode=0o700)
    for name, key in keys.items():
        key.save(directory / "keys" / name, name)
    try:
        made = LocalLog.create(
            directory / "log", keys["log"], keys["witness"], origin, places=places
        )
    except AttestError:
        shutil.rmtree(
            directory
        )  # keys of a log that there is not would stand in the next one's way
        raise
    with made as log:
        if others.witnesses:
            others.write(directory / "log")
        return log.names


def freeze_log(folder: Path) -> Checkpoint:
    """Freeze the log in a folder; return the head of all that it will ever hold."""
    with LocalLog.open(folder) as log:
        return Checkpoint.from_text(Note.from_bytes(log.freeze()).text)


def serve_log(folder: Path, place: "Place", pace: Pace, began: Callable[[str, str], None]) -> None:
    """Serve the log in a folder until it is stopped; `began` gets its URL and vkey.

    Raises CommandError where another process serves it or the port is taken.
    """
    from attest.log.service import application
    from launch.http_server import HttpServer

    # A second server would be no danger to the log, but would publish what the first does not know.
    with locked(folder / "served.lock", wait_seconds=0.0), LocalLog.open(folder) as log:
        house = House(
            log,
            folder,
            reporter=_reporter(folder),
            checkpoint_seconds=pace.checkpoint_seconds,
            key_rate=_rate(pace.key_rate),
            address_rate=_rate(pace.address_rate),
        )
        server = HttpServer(application(house), place)
        house.open()
        server.run(lambda: began(server.url, log.names.log.to_text()))


def _reporter(folder: Path) -> PrivateKey:
    """Return the key by which the log reports contradictions; made at the first time."""
    path = folder.absolute().parent / "keys" / "reporter"
    if not path.is_file():
        PrivateKey.generate().save(path, "reporter")
    return PrivateKey.load(path)


def _rate(per_second: float) -> Rate:
    return Rate(per_second, burst=per_second * _BURST_SECONDS)
