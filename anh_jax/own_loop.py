"""The library door: a training loop that is not ours, made attested.

    contract = anh_jax.prepare(experiment, model=model)
    run = anh_jax.open_run(contract, "runs/mine")
    for step in run.steps:
        batch = run.batch(step)
        ...                                       # your own step, however you compute it
        run.step(step, gradient=gradient, state=state, loss=loss)
    run.finish()

It writes signed files and no more: `anh prove runs/mine` brings them to a log and makes the run
proof. The plan is `native`: an auditor judges such a run by the contract's programs within bounds,
since nobody else runs your code. For the same reason nobody else can make its states and gradients
again, so they are kept in the run directory beside the training checkpoints.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax import attested_run
from anh_jax.digest.digester import committed_outputs
from anh_jax.digest.host import tree_digest
from anh_jax.digest.layout import lay_out
from anh_jax.environment import environment, execution_class
from anh_jax.errors import AnhError
from anh_jax.export_weights import exported_bytes, gathered, write_export
from anh_jax.preparation import PreparedContract, plan_digest
from anh_jax.run_directory import RunDirectory
from anh_jax.training.bound_estimate import BoundSource
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.digest_policy import every_of
from anh_jax.training.digester_choice import choose_digester
from anh_jax.training.loop import CompletedStep, StepBatch
from anh_jax.training.observers.attestation import Attestation, DigestSchedule
from anh_jax.training.observers.checkpointing import Checkpointing
from anh_jax.training.observers.metrics import MetricsFile
from anh_jax.training.recorder import StepRecorder
from anh_jax.training.retained_steps import RETENTION_FACT, RetainedSteps
from anh_jax.training.seams import AttemptRequest
from anh_jax.training.segments import open_segments
from anh_jax.workbench import MeshSizes, Workbench, materials_of
from attest.canonical import hex_float, parse_hex_float
from attest.keys import PrivateKey
from attest.step_file import StepFile


class OwnRun:
    """One attested run of a loop of your own, in one process; made by `open_run`."""

    def __init__(
        self,
        run: RunDirectory,
        bench: Workbench,
        retained: RetainedSteps,
        *,
        bound: float | BoundSource | None = None,
    ) -> None:
        self._run = run
        self._bench = bench
        self._contract = bench.materials.contract
        self._state: dict[str, Any] = bench.executor.initial_state(self._contract.seed)
        self._taken = 0
        self._clock = time.perf_counter()
        self._retained = retained
        self._attestation = _begin(run, bench, self._state, retained, bound)
        kept = bench.materials.experiment.checkpoints
        self._checkpoints = TrainingCheckpoints(run.checkpoints, keep=kept.keep)
        self._checkpointing = Checkpointing(
            self._checkpoints,
            every=kept.every_steps,
            last_step=self._contract.steps,
            place=self._attestation.place,
            should_stop=lambda: False,
            announce=lambda step: None,
            may_save=self._attestation.can_place,
        )
        self._metrics = MetricsFile(
            run.metrics,
            first_step=1,
            digest_seconds=self._attestation.seconds,
        )

    @property
    def directory(self) -> Path:
        """Return the run directory."""
        return self._run.root

    @property
    def steps(self) -> Iterator[int]:
        """Iterate over the contract's steps, 1 to T."""
        return iter(range(1, self._contract.steps + 1))

    @property
    def initial_state(self) -> dict[str, Any]:
        """Return state 0 as genesis commits it: `key, step, parameters, optimizer`."""
        return jax.tree.map(lambda leaf: leaf, self._state)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Return the examples that the contract gives to a step, one row each."""
        return self._bench.reader.batch_for_step(step).examples

    def step(
        self,
        step: int,
        *,
        gradient: Mapping[str, Any],
        state: Mapping[str, Any],
        loss: float | jax.Array,
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        """Sign one step: `gradient` and `loss` are sums over the batch, `state` the state after it.

        `state` has the contract's `parameters` and `optimizer`; `key` and `step` are filled in.
        Raises AnhError for a step out of order or a tree that is not the contract's, and where the
        disk fails; a step that was signed all the same is not taken twice.
        """
        if step != self._taken + 1:
            raise AnhError(f"step {step}: step {self._taken + 1} comes next; sign steps in order")
        moved = {
            "key": self._state["key"],
            "step": jnp.uint32(step),
            "parameters": state["parameters"],
            "optimizer": state["optimizer"],
        }
        self._check_tree(moved)
        weight = jnp.float32(self._contract.batch_size)
        outputs = {
            "gradient": dict(gradient),
            "statistics": dict(statistics or {}),
            "loss": jnp.float32(loss),
            "weight": weight,
        }
        root = self._bench.reader.batch_for_step(step).root.hex()
        now = time.perf_counter()
        completed = CompletedStep(
            step=step,
            state=moved,
            outputs=outputs,
            scalars=self._bench.executor.scalars(outputs),
            batch=StepBatch(step=step, pieces=(), root=root),
            seconds=now - self._clock,
        )
        self._clock = now
        for tree in (committed_outputs(outputs), moved):
            lay_out(tree)  # refuses what has no digest while the step can still be made again
        # Where this fails, nothing is signed, and the caller may free the disk and try again; from
        # here on a second call would sign the step twice, which no honest key does.
        self._retained.save(step, outputs, moved)
        self._taken = step
        self._state = moved
        self._attestation.after_step(completed)
        self._checkpointing.after_step(completed)
        self._metrics.after_step(completed)

    def finish(self) -> Path:
        """Export the weights, evaluate the hold-out set, sign `final`; return the directory."""
        self._checkpointing.finish()
        self._checkpoints.close()
        self._attestation.close()
        self._metrics.close()
        parameters = self._state["parameters"]
        write_export(exported_bytes(gathered(parameters)), self._run.export)
        counts = self._bench.evaluate(parameters)
        metrics = {
            "holdoutCorrect": counts.correct,
            "holdoutTotal": counts.total,
            "holdoutLoss": hex_float(counts.loss),
        }
        attested_run.close(self._run, metrics)
        return self._run.root

    def _check_tree(self, state: Mapping[str, Any]) -> None:
        def shapes(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)

        expected, found = shapes(self._bench.abstract_state()), shapes(dict(state))
        if expected != found:
            raise AnhError(
                f"{self._run.root}: the state's tree, shapes or dtypes are not the contract's; "
                "begin with initial_state and keep its form"
            )


def open_run(
    contract: PreparedContract,
    directory: str | Path,
    *,
    retain_bytes: int | None = None,
    bench: Workbench | None = None,
    bound: float | BoundSource | None = None,
) -> OwnRun:
    """Begin an attested run of your own loop in a new directory.

    `bench` is the contract's workbench where one is loaded already; several runs may share it.
    `bound` is the relative bound to declare with every step, which can only tighten the contract's
    tolerance; None declares the contract's cap. A source's newest estimate is declared instead, and
    kept in the training checkpoints, where your loop measures it (`training/declared_bound.py`).
    `retain_bytes` bounds what is kept for auditors, bytes; the oldest steps go first, genesis says
    so, and a step that is not kept any more counts as withheld. None keeps every step. Raises
    AnhError where the directory holds something already.
    """
    run = RunDirectory.create(Path(directory))
    contract.write(run)
    bench = bench or Workbench(materials_of(contract), MeshSizes(), microbatch=None)
    retained = RetainedSteps(run.retained, limit=retain_bytes)
    return OwnRun(run, bench, retained, bound=bound)


def _begin(
    run: RunDirectory,
    bench: Workbench,
    state: Mapping[str, Any],
    retained: RetainedSteps,
    bound: float | BoundSource | None,
) -> Attestation:
    experiment, contract = bench.materials.experiment, bench.materials.contract
    alg = experiment.attest.alg
    root = tree_digest(state, step=0, alg=alg).root.hex()
    sizes = bench.sizes.as_dict()
    facts = execution_class(sizes, processes=1)
    origin = attested_run.Origin(
        state_root=root,
        plan=plan_digest(experiment),
        operator=experiment.attest.operator,
        execution_class=facts,
        environment={**environment(), RETENTION_FACT: retained.rule},
        digest_policy=experiment.attest.unmeasured_digest,
        alg=alg,
        init=bench.materials.programs.init_kind,
    )
    identity = attested_run.begin(run, origin)
    key = PrivateKey.generate()
    request = AttemptRequest(
        rank=0,
        public_key_hex=key.public.hex(),
        resumed_record_hex=None,
        step=0,
        mesh=sizes,
        processes=1,
        environment={**environment(), "selfReplay": "not tried"},
        reason="start",
    )
    grant = attested_run.sign_attempt(run, [request], segments=experiment.attest.segments)
    key.save(run.key_path(f"worker-{grant.number}-0"), "worker")
    source, own = (bound, None) if isinstance(bound, BoundSource) else (None, bound)
    recorder = StepRecorder(
        run=identity,
        attempt=grant.record,
        key=key,
        file=StepFile(run.step_file(attempt=grant.number, rank=0)),
        previous=identity,
        bound=parse_hex_float(contract.numerics.cap) if own is None else own,
        segments=open_segments(run, grant, run_id=identity, rank=0, last_step=contract.steps),
    )
    digests = choose_digester(experiment.attest.digester, bench.mesh, alg=alg)
    schedule = DigestSchedule(
        every=every_of(experiment.attest.unmeasured_digest),
        compare_every=experiment.checkpoints.every_steps,
        last_step=contract.steps,
    )
    return Attestation(recorder, digests.digester, schedule, source)
