"""One worker of a run, from its start to its last row: what every runner calls, in every process.

A worker holds no run key and knows no cluster: it asks its broker for an attempt to sign under and
tells its reporter the news (`seams.py`).
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from anh_jax.experiment_choices import LanguageModel
from anh_jax.export_weights import exported_bytes, gathered, write_export
from anh_jax.models.generation import generate_bytes
from anh_jax.models.registry import build_model
from anh_jax.preparation import example_fields
from anh_jax.run_directory import RunDirectory, write_atomically
from anh_jax.training.attempt import Worker, open_attempt
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.digester_choice import choose_digester
from anh_jax.training.loop import CompletedStep, train
from anh_jax.training.observers.attestation import Attestation
from anh_jax.training.observers.checkpointing import Checkpointing
from anh_jax.training.observers.evaluation import Evaluation
from anh_jax.training.observers.metrics import MetricsFile
from anh_jax.training.resume import find_start
from anh_jax.training.seams import AttemptBroker, Reporter
from anh_jax.workbench import MeshSizes, Workbench, read_materials

_SAMPLE_BYTES = 240


def train_worker(
    run_directory: Path,
    *,
    rank: int,
    processes: int,
    broker: AttemptBroker,
    reporter: Reporter,
    workbench: Callable[..., Workbench] = Workbench,
) -> None:
    """Train this process's part of a run until its last step, or until the reporter says stop.

    `workbench` makes what executes the steps, from the arguments of `Workbench`.
    Raises AnhError in one line: what, where, what to do.
    """
    clock = time.perf_counter()
    run = RunDirectory.open(run_directory)
    materials = read_materials(run)
    experiment = materials.experiment
    mesh = experiment.mesh
    sizes = MeshSizes(data=mesh.data, fsdp=mesh.fsdp, tensor=mesh.tensor)
    bench = workbench(materials, sizes, microbatch=experiment.plan.microbatch)
    checkpoints = TrainingCheckpoints(run.checkpoints, keep=experiment.checkpoints.keep)
    reporter.phase("programs loaded", time.perf_counter() - clock)
    clock = time.perf_counter()
    attest = experiment.attest
    digests = choose_digester(attest.digester, bench.mesh, alg=attest.alg)
    if attest.mode == "full":
        reporter.phase(f"digests: {digests.words}", time.perf_counter() - clock)
    worker = Worker(run, bench, checkpoints, digests, rank, processes, reporter)
    try:
        _train(worker, broker)
    finally:
        checkpoints.close()


def _train(worker: Worker, broker: AttemptBroker) -> None:
    bench, experiment = worker.bench, worker.bench.materials.experiment
    steps = bench.materials.contract.steps
    start = find_start(worker.run, bench, worker.checkpoints, worker.digests.digester)
    if start.checked:
        worker.reporter.phase(f"resumed at step {start.step}; {start.checked}", 0.0)
    attestation = None
    if experiment.attest.mode == "full" and start.step < steps:
        opened = open_attempt(worker, broker, start)
        attestation, start = opened.attestation, opened.start
    evaluation = Evaluation(
        bench.evaluate, every=experiment.evaluation.every_steps, last_step=steps
    )
    checkpointing = Checkpointing(
        worker.checkpoints,
        every=experiment.checkpoints.every_steps,
        last_step=steps,
        place=lambda: _place(attestation),
        should_stop=worker.reporter.should_stop,
        announce=lambda step: worker.reporter.checkpoint(step, worker.run.checkpoints),
        may_save=lambda step: attestation is None or attestation.can_place(step),
    )
    observers: list[Any] = [evaluation, checkpointing]
    if attestation is not None:
        observers.insert(0, attestation)
    metrics = None
    if worker.rank == 0:
        metrics = MetricsFile(
            worker.run.metrics,
            first_step=start.step + 1,
            digest_seconds=_no_seconds if attestation is None else attestation.seconds,
            extra=evaluation.row,
        )
        observers.append(metrics)
    observers.append(_FirstStep(worker.reporter))
    with ExitStack() as files:
        # Left in the other order: a step's metrics are written once it is signed.
        for file in (metrics, attestation):
            if file is not None:
                files.enter_context(file)
        state = train(
            bench.executor, start.state, bench.batches(start.step + 1, steps), observers,
            checkpointing.stop,
            None if attestation is None else attestation.before_update,
        )  # fmt: skip
        checkpointing.finish()
    if not checkpointing.stopping:
        _export(worker, state["parameters"])


def _place(attestation: Attestation | None) -> Position:
    if attestation is None:
        return Position(row="", record="")
    return attestation.place()


def _no_seconds(step: int) -> float:
    return 0.0


def _export(worker: Worker, parameters: dict[str, Any]) -> None:
    whole = gathered(parameters)
    if worker.rank == 0:
        write_export(exported_bytes(whole), worker.run.export)
        _write_sample(worker, whole)
    if worker.processes > 1:
        from jax.experimental import multihost_utils

        # The driver closes the run once the workers have returned; the file must be there then.
        multihost_utils.sync_global_devices("anh export")


def _write_sample(worker: Worker, parameters: dict[str, Any]) -> None:
    """Write a text sample where the model is a byte-level language model."""
    materials = worker.bench.materials
    config = materials.experiment.model
    if not isinstance(config, LanguageModel) or config.vocabulary != 256:
        return
    model = build_model(config, example_fields(materials.source.train))
    text = generate_bytes(
        model,
        parameters,
        b"The ",
        length=_SAMPLE_BYTES,
        window=config.sequence_length,
        key=jax.random.key(materials.contract.seed),
    )
    path = worker.run.root / "sample.txt"
    write_atomically(path, text.decode("utf-8", errors="replace").encode())


class _FirstStep:
    """Tells the reporter once how long the first step took, compilation included."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told = False

    def after_step(self, completed: CompletedStep) -> None:
        if not self._told:
            self._told = True
            jax.block_until_ready(completed.outputs["loss"])
            self._reporter.phase("first step", completed.seconds)
