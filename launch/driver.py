"""Drives one run from its first statement to its proof: the process that holds the run key.

Workers train; the driver signs what they may not (genesis, attempts, final), ships what everybody
signed to the log while they train, and puts the run proof together when they have returned.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from anh_jax import attested_run
from anh_jax.experiment import Experiment, load_experiment
from anh_jax.preparation import plan_digest
from anh_jax.run_directory import RunDirectory
from anh_jax.training.digest_policy import decide, setting_of
from anh_jax.training.seams import AttemptGrant, AttemptRequest
from attest.canonical import hex_float
from attest.errors import InputError
from attest.file_lock import locked
from attest.log.remote import RemoteLog
from attest.log.shipper import Shipper
from launch.errors import CommandError
from launch.logs import open_run_log
from launch.prover import prove


@dataclass(frozen=True, slots=True)
class Shipped:
    """How many rows this driver's run has signed and logged so far."""

    signed: int
    logged: int


class RunDriver:
    """The run's keys, log and shipper; use it as a context manager.

    With `attest.mode: off` there is no log, and nothing is signed or shipped. A served log that is
    away stops nothing: `behind` says so, and `anh prove` ships the rest.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.behind = ""
        self._lock = ExitStack()
        self._hold_run()
        self.experiment: Experiment = load_experiment(run.root / "config.yaml")
        self._log = open_run_log(run) if self.attested else None
        self._shipper = None if self._log is None else Shipper(run.root, self._log)

    def __enter__(self) -> "RunDriver":
        if self._shipper is not None:
            self._shipper.start()
        return self

    def __exit__(self, *unused: object) -> None:
        with self._lock:
            if self._shipper is not None and self._log is not None:
                self._shipper.stop()
                self._log.close()

    def _hold_run(self) -> None:
        # Two drivers of one run would sign two attempts of one number: evidence against the key.
        try:
            self._lock.enter_context(locked(self.run.root / "driver.lock", wait_seconds=0.0))
        except InputError:
            raise CommandError(
                f"{self.run.root}: another process trains this run; wait for it or stop it"
            ) from None

    @property
    def attested(self) -> bool:
        """Tell whether the run signs anything at all."""
        return self.experiment.attest.mode == "full"

    def grant(self, requests: Sequence[AttemptRequest]) -> AttemptGrant:
        """Sign genesis, if the run has none, and the attempt that the workers ask for."""
        if not self.run.has_statement("genesis"):
            self._begin(requests)
        return attested_run.sign_attempt(
            self.run, requests, segments=self.experiment.attest.segments
        )

    def check(self) -> None:
        """Raise what stopped the shipper: hosts that signed different rows, a full disk."""
        if self._shipper is not None:
            self._shipper.check()

    def shipped(self) -> Shipped:
        """Return how far signing and logging are."""
        if self._shipper is None:
            return Shipped(signed=0, logged=0)
        progress = self._shipper.progress
        return Shipped(signed=progress.signed, logged=progress.logged)

    def drain(self) -> None:
        """Log everything that is signed, and have a checkpoint over it."""
        if self._shipper is None or not self.run.has_statement("genesis"):
            return
        self.behind = ""
        try:
            self._shipper.drain()
        except InputError as error:
            self._fall_behind(error)

    def finish(self) -> Path | None:
        """Close the run: log every row, sign `final`, log it, and write the run proof.

        Returns None where the run's log is served and away: the run is closed all the same.
        """
        if self._log is None:
            raise CommandError(f"{self.run.root}: nothing was signed (attest.mode: off)")
        self.drain()
        attested_run.close(self.run, self._final_metrics())
        try:
            return prove(self.run, self._log)
        except InputError as error:
            self._fall_behind(error)
            return None

    def _fall_behind(self, error: InputError) -> None:
        """Take note that a served log is away; a log in the run directory has to be there."""
        if not isinstance(self._log, RemoteLog):
            raise error
        self.behind = str(error)

    def _begin(self, requests: Sequence[AttemptRequest]) -> None:
        first = requests[0]
        if first.initial_root is None or any(
            request.initial_root != first.initial_root for request in requests
        ):
            raise CommandError(
                f"{self.run.root}: the workers do not agree on state 0; are they of one kind?"
            )
        experiment = self.experiment
        decision = decide(
            setting_of(experiment),
            [request.warm_up for request in requests],
            checkpoint_every=experiment.checkpoints.every_steps,
        )
        attested_run.begin(
            self.run,
            attested_run.Origin(
                state_root=first.initial_root,
                plan=plan_digest(experiment),
                operator=experiment.attest.operator,
                execution_class=first.execution_class,
                environment=first.environment | decision.facts,
                digest_policy=decision.policy,
                alg=experiment.attest.alg,
                init=attested_run.init_kind(self.run),
            ),
        )

    def _final_metrics(self) -> dict[str, int | str]:
        newest = None
        for row in self.run.read_metrics():
            newest = row
        if newest is None:
            return {}
        found: dict[str, int | str] = {"loss": hex_float(float(newest["loss"]))}
        names = {"holdout_correct": "holdoutCorrect", "holdout_total": "holdoutTotal"}
        found.update({names[key]: int(newest[key]) for key in names if key in newest})
        return found
