"""Trains a canary run and writes its answer: which steps are faulty, sealed before the final."""

import secrets
from pathlib import Path

from anh_jax.attested_run import run_id
from anh_jax.audit.canary import SALT_BYTES, choose_faults, planted
from anh_jax.experiment import Experiment
from anh_jax.run_directory import RunDirectory
from anh_jax.training.worker import train_worker
from attest.canary import MAX_ANSWER_BYTES, CanaryAnswer
from attest.durable_file import read_file, replace_file
from attest.envelope import sign
from attest.errors import FormatError
from attest.keys import PrivateKey
from attest.log.sequencer import LocalLog
from attest.sample import commitment
from attest.statements import Intent, encode_statement
from launch.attempt_broker import DirectBroker
from launch.driver import RunDriver
from launch.errors import CommandError
from launch.interrupts import Interrupts
from launch.phases import Phase
from launch.runner_local import LocalReporter
from launch.start_checks import check_start
from launch.training import prepare_run

Answer = CanaryAnswer


def read_answer(path: Path) -> CanaryAnswer:
    """Read an answer file; raises CommandError for any other."""
    try:
        return CanaryAnswer.from_bytes(read_file(path, MAX_ANSWER_BYTES))
    except FormatError:
        raise CommandError(f"{path}: is no answer of a canary run") from None


def plant(experiment: Experiment, root: Path, *, faults: int, answer: Path) -> CanaryAnswer:
    """Train a run with secret faults, commit to them in its log, close it, write the answer.

    Raises CommandError where the run was stopped, or the answer file would replace one or lie in
    the run directory, where auditors look.
    """
    if answer.exists() or answer.resolve().is_relative_to(root.resolve()):
        raise CommandError(f"{answer}: keep the answer in a new file outside the run directory")
    check_start(experiment, "local")
    chosen = choose_faults(steps=experiment.training.steps, count=faults)
    with RunDirectory.prepared(root) as run:
        prepare_run(experiment, run, "local")
    with RunDriver(run) as driver:
        if not driver.attested:
            raise CommandError("attest.mode: off signs nothing, so there is nothing to audit")
        _train(run, driver, chosen)
        driver.drain()
        sealed = CanaryAnswer(run_id(run), secrets.token_bytes(SALT_BYTES), chosen)
        # Before the intent: faults that are committed to and lost try nobody.
        replace_file(answer, sealed.to_bytes())
        answer.chmod(0o600)
        _commit(run, experiment.attest.operator, sealed)
        driver.finish()
    return sealed


def _train(run: RunDirectory, driver: RunDriver, faults: tuple[int, ...]) -> None:
    with Interrupts() as interrupts:
        reporter = LocalReporter(interrupts, run.stop_request, _quiet, driver.check)
        train_worker(
            run.root,
            rank=0,
            processes=1,
            broker=DirectBroker(driver.grant),
            reporter=reporter,
            workbench=planted(faults),
        )
    if reporter.stopped:
        raise CommandError(f"{run.root}: stopped; a canary run is not resumed, plant another")


def _commit(run: RunDirectory, operator: str, answer: CanaryAnswer) -> None:
    """Log the intent that holds the answer, as the run's own auditor announces any audit."""
    path = run.key_path("auditor")
    if not path.is_file():
        PrivateKey.generate().save(path, "auditor")
    key = PrivateKey.load(path)
    intent = Intent("run", answer.run, operator, commitment(answer.nonce).hex())
    with LocalLog.open(run.log) as log:
        log.append([sign(encode_statement(intent), [key])], keys=[key.public])


def _quiet(phase: Phase) -> None:
    del phase
