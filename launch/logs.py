"""Opens the log of a run or the log in a folder, wherever it is kept: here, or with a service."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attest.keys import PrivateKey
from attest.log.fsck import fsck
from attest.log.http_witness import Witnesses
from attest.log.remote import PINNED, RemoteLog
from attest.log.sequencer import LocalLog
from launch.commands.log import log_folder
from launch.errors import CommandError

if TYPE_CHECKING:
    from anh_jax.run_directory import RunDirectory

LOCAL = "local"


def open_log(folder: Path) -> LocalLog | RemoteLog:
    """Open the log of a log folder: the one in it, or the served one that it names."""
    return RemoteLog.open(folder) if is_served(folder) else LocalLog.open(folder)


def open_log_of(directory: Path) -> LocalLog | RemoteLog:
    """Open the log of a run directory or log directory."""
    return open_log(log_folder(directory))


def is_served(folder: Path) -> bool:
    """Tell whether a log folder only names a log that somebody serves."""
    return (folder / PINNED).is_file()


def check_log(directory: Path) -> None:
    """Check a log that lies here from the ground up; what is served is checked as it comes.

    Raises RefusedError naming the first damage.
    """
    folder = log_folder(directory)
    if not is_served(folder):
        fsck(folder)


def publishes(run: "RunDirectory") -> bool:
    """Tell whether a checkpoint over what is logged here can be had: by own keys, or by waiting."""
    own = run.key_path("log").is_file() and run.key_path("witness").is_file()
    return own or is_served(run.log)


def open_run_log(run: "RunDirectory") -> LocalLog | RemoteLog:
    """Open the run's log as its configuration says; a local one is made with keys of its own."""
    from anh_jax.experiment import load_experiment  # `anh monitor` does without what this needs

    config = run.root / "config.yaml"
    address, witnesses = LOCAL, (LOCAL,)
    if config.is_file():
        attest = load_experiment(config).attest
        address, witnesses = attest.log, attest.witnesses
    if run.log.exists() and any(run.log.iterdir()):
        log = open_log(run.log)
        if address not in (_address(log), LOCAL):
            raise CommandError(
                f"{run.log}: is the run's log already ({_address(log)}); a run keeps its log, so "
                f"set attest.log back from {address}"
            )
        return log
    if address != LOCAL:
        return RemoteLog(address, run.log)
    keys = {name: _new_key(run, name) for name in ("log", "witness")}
    # The key makes the origin unique: two runs of one name must never share a log's identity.
    origin = f"local.anh-jax.dev/{run.root.name}-{keys['log'].keyid[:12]}"
    made = LocalLog.create(run.log, keys["log"], keys["witness"], origin)
    others = Witnesses.of(text for text in witnesses if text != LOCAL)
    if not others.witnesses:
        return made
    made.close()
    others.write(run.log)
    return LocalLog.open(run.log)


def _address(log: LocalLog | RemoteLog) -> str:
    return log.url if isinstance(log, RemoteLog) else LOCAL


@contextmanager
def run_log(run: "RunDirectory") -> Generator[LocalLog | RemoteLog]:
    """Open the run's log for the time of a `with` block."""
    log = open_run_log(run)
    try:
        yield log
    finally:
        log.close()


def _new_key(run: "RunDirectory", name: str) -> PrivateKey:
    path = run.key_path(name)
    if path.exists():
        return PrivateKey.load(path)
    key = PrivateKey.generate()
    key.save(path, name)
    return key
