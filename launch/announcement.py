"""Announces an audit while the run goes on: an intent that commits to a nonce.

A loop of one's own signs files and logs nothing before it is over; what it has signed so far is
then logged first, as the commands would after its end, so that the intent has a run to be about.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from anh_jax.attested_run import genesis_of, run_id
from anh_jax.audit.receipt import new_nonce
from anh_jax.run_directory import RunDirectory
from attest.errors import InputError
from attest.file_lock import locked
from attest.log.shipper import Shipper
from attest.sample import commitment
from attest.statements import Intent
from launch.auditor_home import keep_nonce
from launch.auditor_name import Asked, auditor_name, read_policy
from launch.errors import CommandError
from launch.logged_run import read_announced
from launch.logs import open_log, open_log_of, publishes, run_log
from launch.unsigned_run import NOTHING_SIGNED, is_unsigned

# A second auditor who announces meanwhile is done in less; a driver holds the run for its life.
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """An intent in the log: at which index, by whom, and where its nonce is kept."""

    index: int
    record: str
    operator: str
    nonce: Path | None


def announce(directory: Path, asked: Asked) -> Announcement:
    """Log an intent to audit a run that is not final; a key that announced before is left at that.

    The nonce is kept before the intent is logged. Raises CommandError for a final run.
    """
    run = begun_run(directory)
    who = auditor_name(directory, asked, read_policy(asked), genesis_of(run).trainer)
    _log_beginning(run)
    with open_log_of(directory) as log:
        announced = read_announced(log, run_id(run))
        first = announced.first_by(who.key.keyid)
        if first is not None:
            return Announcement(first.index, first.record, who.operator, None)
        if announced.final_index is not None or run.has_statement("final"):
            raise _too_late(run)
        nonce = new_nonce()
        intent = Intent("run", run_id(run), who.operator, commitment(nonce).hex())
        envelope = who.sign(intent)
        kept = keep_nonce(envelope.record_hash().hex(), nonce)
        (index,) = log.append([envelope], keys=[who.key.public])
        if publishes(run):
            log.checkpoint()
        return Announcement(index, envelope.record_hash().hex(), who.operator, kept)


def _log_beginning(run: RunDirectory) -> None:
    """Log what the run has signed so far, where its log holds nothing of it and nobody drives it.

    Raises CommandError where a driver is about to do so.
    """
    if run.log.is_dir() and any(run.log.iterdir()):
        with open_log(run.log) as log:
            if log.index_of(bytes.fromhex(run_id(run))) is not None:
                return
    if run.has_statement("final"):
        raise _too_late(run)
    with ExitStack() as stack:
        try:
            # Two shippers of one directory would race for the same rows.
            stack.enter_context(locked(run.root / "driver.lock", wait_seconds=_PATIENCE))
        except InputError:
            raise CommandError(
                f"{run.root}: another process holds the run and has logged nothing yet; try again"
            ) from None
        log = stack.enter_context(run_log(run))
        Shipper(run.root, log).drain()


def _too_late(run: RunDirectory) -> CommandError:
    return CommandError(
        f"{run.root}: the run is final; an intent comes before, so that nobody can choose the "
        "final record to fit the sample. Without --intend the audit is self-sampled"
    )


def begun_run(directory: Path) -> RunDirectory:
    """Open a run that has a genesis; raises CommandError where it has none."""
    run = RunDirectory.open(directory)
    if is_unsigned(directory):
        raise CommandError(f"{directory}: {NOTHING_SIGNED} or audited")
    if not run.has_statement("genesis"):
        raise CommandError(f"{directory}: the run has not begun; try again after its first step")
    return run
