"""Trains a canary run and writes its answer: which steps are faulty, sealed before the final."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anh_jax.attested_run import run_id
from anh_jax.audit.canary import SALT_BYTES, canary_nonce, choose_faults, planted
from anh_jax.experiment import Experiment
from anh_jax.run_directory import RunDirectory
from anh_jax.training.worker import train_worker
from attest import canonical
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

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the maker of a canary run keeps to himself until he has tried the auditors."""

    run: str
    salt: bytes
    faults: tuple[int, ...]

    @property
    def nonce(self) -> bytes:
        """Return what the maker's intent commits to."""
        return canary_nonce(self.run, self.salt, self.faults)

    def to_bytes(self) -> bytes:
        """Return the answer file: canonical JSON."""
        return canonical.encode(
            {
                "kind": "canary answer",
                "version": 1,
                "run": self.run,
                "salt": self.salt.hex(),
                "faults": list(self.faults),
            }
        )


def read_answer(path: Path) -> Answer:
    """Read an answer file; raises CommandError for any other."""
    try:
        told: Any = canonical.decode(read_file(path, _MAX_BYTES), max_bytes=_MAX_BYTES)
        if (told["kind"], told["version"]) != ("canary answer", 1):
            raise CommandError(f"{path}: is no answer of a canary run")
        faults = tuple(int(step) for step in told["faults"])
        return Answer(str(told["run"]), bytes.fromhex(told["salt"]), faults)
    except (FormatError, KeyError, TypeError, ValueError, AttributeError):
        raise CommandError(f"{path}: is no answer of a canary run") from None


def plant(experiment: Experiment, root: Path, *, faults: int, answer: Path) -> Answer:
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
        sealed = Answer(run_id(run), secrets.token_bytes(SALT_BYTES), chosen)
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


def _commit(run: RunDirectory, operator: str, answer: Answer) -> None:
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
