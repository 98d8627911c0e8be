"""Announces an audit while the run goes on: an intent that commits to a nonce."""

from dataclasses import dataclass
from pathlib import Path

from anh_jax.attested_run import genesis_of, run_id
from anh_jax.audit.receipt import new_nonce
from anh_jax.run_directory import RunDirectory
from attest.log.sequencer import LocalLog
from attest.sample import commitment
from attest.statements import Intent
from launch.auditor_home import keep_nonce
from launch.auditor_name import Asked, auditor_name, read_policy
from launch.commands.log import log_folder
from launch.errors import CommandError
from launch.logged_run import read_announced
from launch.unsigned_run import NOTHING_SIGNED, is_unsigned


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
    with LocalLog.open(log_folder(directory)) as log:
        announced = read_announced(log, run_id(run))
        first = announced.first_by(who.key.keyid)
        if first is not None:
            return Announcement(first.index, first.record, who.operator, None)
        if announced.final_index is not None or run.has_statement("final"):
            raise CommandError(
                f"{directory}: the run is final; an intent comes before, so that nobody can choose "
                "the final record to fit the sample. Without --intend the audit is self-sampled"
            )
        nonce = new_nonce()
        intent = Intent("run", run_id(run), who.operator, commitment(nonce).hex())
        envelope = who.sign(intent)
        kept = keep_nonce(envelope.record_hash().hex(), nonce)
        (index,) = log.append([envelope], keys=[who.key.public])
        if publishes(run):
            log.checkpoint()
        return Announcement(index, envelope.record_hash().hex(), who.operator, kept)


def begun_run(directory: Path) -> RunDirectory:
    """Open a run that has a genesis; raises CommandError where it has none."""
    run = RunDirectory.open(directory)
    if is_unsigned(directory):
        raise CommandError(f"{directory}: {NOTHING_SIGNED} or audited")
    if not run.has_statement("genesis"):
        raise CommandError(f"{directory}: the run has not begun; try again after its first step")
    return run


def publishes(run: RunDirectory) -> bool:
    """Tell whether the keys that publish the run's log are at hand."""
    return run.key_path("log").is_file() and run.key_path("witness").is_file()
