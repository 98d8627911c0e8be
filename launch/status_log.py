"""Sign the status of a log's contracts and append it to that log."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attest.checkpoint import Checkpoint
from attest.contract import Contract
from attest.envelope import Envelope
from attest.errors import EquivocationError
from attest.keys import PrivateKey
from attest.log.http_witness import Witnesses
from attest.log.remote import RemoteLog
from attest.log.run_log import RunLog
from attest.monitor import watch
from attest.note import Note
from attest.statements import ContractStatement, Genesis, Status, decode_statement
from launch.commands.log import log_folder
from launch.errors import CommandError
from launch.evidence import keep_evidence
from launch.key_home import find_key, key_folder
from launch.logs import is_served, open_log


@dataclass(frozen=True, slots=True)
class MonitorName:
    """Who signs: the key, and the operator whom policies name for it."""

    key: PrivateKey
    operator: str


@dataclass(frozen=True, slots=True)
class Signed:
    """One status that was appended: about which contract, as of which size, at which index.

    `accused` are the runs in it that told two stories; their evidence is in files.
    """

    contract: str
    size: int
    index: int
    runs: int
    accused: tuple[EquivocationError, ...]


def monitor_name(directory: str | Path, key: str | None, operator: str | None) -> MonitorName:
    """Return who signs: the named key, or the run's own monitor key in its trainer's name.

    A key of one's own needs an operator of one's own: a policy counts operators, not keys.
    """
    if key is not None:
        if operator is None:
            raise CommandError("--key needs --operator: the name that policies give your key")
        return MonitorName(find_key(key), operator)
    if is_url(directory):
        raise CommandError("--key: name your monitor key; 'anh key new NAME' makes one")
    directory = Path(directory)
    own = directory / "keys" / "monitor"
    if not own.is_file():
        # The trainer's own monitor: it counts for nobody else, and its policy says so.
        PrivateKey.generate().save(own, "monitor")
    return MonitorName(PrivateKey.load(own), operator or _trainer(directory))


class StatusLog:
    """An open log, and whether this process may publish it, or wait until its service does.

    With a local log's keys at hand it is published up to date before a status is signed and again
    afterwards; without them the status is appended and the log's operator publishes it.
    """

    def __init__(self, directory: str | Path, witnesses: Sequence[str] = ()) -> None:
        self._directory = directory
        self._witnesses = Witnesses.of(witnesses).witnesses
        if self._witnesses and not is_url(directory):
            raise CommandError("--witness: is for a log that is served; name its URL")
        if is_url(directory):
            self._publishes = True
            self._log = RemoteLog(str(directory), _memory_of(str(directory)))
            return
        folder = log_folder(Path(directory))
        keys = folder.absolute().parent / "keys"
        own = (keys / "log").is_file() and (keys / "witness").is_file()
        self._publishes = own or is_served(folder)
        self._log = open_log(folder)

    def __enter__(self) -> "StatusLog":
        """Hold the log open."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the log."""
        self._log.close()

    @property
    def size(self) -> int:
        """Return how many records the log has acknowledged."""
        return self._log.size

    def compare(self) -> None:
        """Hold a served log against what each witness has seen of it.

        Raises EquivocationError where the log showed another tree there, InputError for a witness
        that is away.
        """
        for witness in self._witnesses:
            if isinstance(self._log, RemoteLog):
                self._log.hold_against(witness)

    def news_since(self, size: int) -> bool:
        """Tell whether anything but statuses was logged at index `size` and after.

        Statuses alone are no reason for another: two monitors would call each other for ever.
        """
        entries = self._log.entries(size, self._log.size)
        return any(not isinstance(decode_statement(e.payload), Status) for e in entries)

    def append(self, envelope: Envelope, publics: Iterable[bytes]) -> int:
        """Log one record, signed by these keys, and publish it where this process may."""
        (index,) = self._log.append([envelope], keys=publics)
        if self._publishes:
            self._log.checkpoint()
        return index

    def sign(self, who: MonitorName) -> list[Signed]:
        """Append one status for each contract: the run's own, or all that a bare log holds."""
        log = self._log
        if self._publishes:
            log.checkpoint()
        size = Checkpoint.from_text(Note.from_bytes(log.published()).text).size
        signed: list[Signed] = []
        for contract in _contracts(self._directory, log, size):
            watched = watch(log, contract, who.key, who.operator)
            accused = tuple(
                keep_evidence(found.error, f"{found.run}.two-stories") for found in watched.accused
            )
            said = decode_statement(watched.envelope.payload)
            runs = len(said.runs) if isinstance(said, Status) else 0
            (index,) = log.append([watched.envelope], keys=[who.key.public])
            signed.append(Signed(contract, size, index, runs, accused))
        if self._publishes:
            log.checkpoint()
        return signed


def is_url(directory: str | Path) -> bool:
    """Tell whether a log is named by where it is served."""
    return str(directory).startswith(("http://", "https://"))


def _memory_of(url: str) -> Path:
    """Return where the keys and the newest checkpoint of a watched log are remembered."""
    return key_folder().parent / "watched" / hashlib.sha256(url.encode()).hexdigest()[:16]


def _contracts(directory: str | Path, log: RunLog, size: int) -> list[str]:
    path = Path(directory) / "contract.json"
    if not is_url(directory) and path.is_file():
        return [Contract.from_bytes(path.read_bytes()).id]
    found: list[str] = []
    for envelope in log.entries(0, size):
        said = decode_statement(envelope.payload)
        if isinstance(said, ContractStatement):
            found.append(said.contract.id)
    if not found:
        raise CommandError(f"{directory}: the log holds no contract yet")
    return found


def _trainer(directory: Path) -> str:
    from anh_jax.run_directory import RunDirectory

    said = decode_statement(RunDirectory.open(directory).statement("genesis").payload)
    if not isinstance(said, Genesis):
        raise CommandError(f"{directory}: statements/genesis.json is no genesis")
    return said.trainer
