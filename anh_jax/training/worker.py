"""One worker of a run, from its start to its last row: what every runner calls, in every process.

A worker holds no run key and knows no cluster: it asks its broker for an attempt to sign under and
tells its reporter the news (`seams.py`).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from anh_jax.attested_run import run_id
from anh_jax.digest.host import gradient_digest
from anh_jax.environment import environment, execution_class
from anh_jax.experiment_choices import LanguageModel
from anh_jax.export_weights import exported_bytes, gathered, write_export
from anh_jax.models.generation import generate_bytes
from anh_jax.models.registry import build_model
from anh_jax.preparation import example_fields
from anh_jax.run_directory import RunDirectory, write_atomically
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.exchange import process_exchange
from anh_jax.training.loop import CompletedStep, train
from anh_jax.training.observers.attestation import Attestation
from anh_jax.training.observers.checkpointing import Checkpointing
from anh_jax.training.observers.evaluation import Evaluation
from anh_jax.training.observers.metrics import MetricsFile
from anh_jax.training.recorder import StepRecorder
from anh_jax.training.resume import Start, find_start
from anh_jax.training.seams import AttemptBroker, AttemptGrant, AttemptRequest, Reporter
from anh_jax.workbench import MeshSizes, Workbench, read_materials
from attest.canonical import parse_hex_float
from attest.keys import PrivateKey
from attest.step_file import StepFile, recover

_SELF_REPLAYS = 3
_SAMPLE_BYTES = 240


@dataclass(frozen=True)
class _Worker:
    run: RunDirectory
    bench: Workbench
    checkpoints: TrainingCheckpoints
    rank: int
    processes: int
    reporter: Reporter


def train_worker(
    run_directory: Path,
    *,
    rank: int,
    processes: int,
    broker: AttemptBroker,
    reporter: Reporter,
) -> None:
    """Train this process's part of a run until its last step, or until the reporter says stop.

    Raises AnhError in one line: what, where, what to do.
    """
    clock = time.perf_counter()
    run = RunDirectory.open(run_directory)
    materials = read_materials(run)
    experiment = materials.experiment
    mesh = experiment.mesh
    sizes = MeshSizes(data=mesh.data, fsdp=mesh.fsdp, tensor=mesh.tensor)
    bench = Workbench(materials, sizes, microbatch=experiment.plan.microbatch)
    checkpoints = TrainingCheckpoints(run.checkpoints, keep=experiment.checkpoints.keep)
    worker = _Worker(run, bench, checkpoints, rank, processes, reporter)
    reporter.phase("programs loaded", time.perf_counter() - clock)
    try:
        _train(worker, broker)
    finally:
        checkpoints.close()


def _train(worker: _Worker, broker: AttemptBroker) -> None:
    bench, experiment = worker.bench, worker.bench.materials.experiment
    steps = bench.materials.contract.steps
    start = find_start(
        worker.run,
        bench,
        worker.checkpoints,
        alg=experiment.attest.alg,
        exchange=process_exchange(),
    )
    if start.checked:
        worker.reporter.phase(f"resumed at step {start.step}; {start.checked}", 0.0)
    attestation = None
    if experiment.attest.mode == "full" and start.step < steps:
        attestation = _attestation(worker, broker, start)
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
    )
    observers: list[Any] = [evaluation, checkpointing]
    if attestation is not None:
        observers.insert(0, attestation)
    metrics = None
    if worker.rank == 0:
        metrics = MetricsFile(
            worker.run.metrics,
            first_step=start.step + 1,
            extra=lambda completed: _extra(attestation, evaluation),
        )
        observers.append(metrics)
    observers.append(_FirstStep(worker.reporter))
    state = train(
        bench.executor, start.state, bench.batches(start.step + 1, steps), observers,
        checkpointing.stop,
    )  # fmt: skip
    checkpointing.finish()
    if attestation is not None:
        attestation.close()
    if metrics is not None:
        metrics.close()
    if not checkpointing.stopping:
        _export(worker, state["parameters"])


def _attestation(worker: _Worker, broker: AttemptBroker, start: Start) -> Attestation:
    experiment, contract = worker.bench.materials.experiment, worker.bench.materials.contract
    clock = time.perf_counter()
    replayed = _self_replay(worker, start, experiment.attest.alg)
    worker.reporter.phase(f"one gradient computed {_SELF_REPLAYS} times: {replayed}",
                          time.perf_counter() - clock)  # fmt: skip
    key = PrivateKey.generate()
    grant = broker.open_attempt(_request(worker, start, key, replayed))
    key.save(worker.run.key_path(f"worker-{grant.number}-{worker.rank}"), "worker")
    run = run_id(worker.run)
    recorder = StepRecorder(
        run=run,
        attempt=grant.record,
        key=key,
        file=_step_file(worker, grant),
        previous=run if start.position is None else start.position.row,
        bound=parse_hex_float(contract.numerics.cap),
    )
    return Attestation(
        recorder,
        alg=experiment.attest.alg,
        every=experiment.attest.digest_every,
        last_step=contract.steps,
        exchange=process_exchange(),
    )


def _request(worker: _Worker, start: Start, key: PrivateKey, replayed: str) -> AttemptRequest:
    sizes = worker.bench.sizes.as_dict()
    return AttemptRequest(
        rank=worker.rank,
        public_key_hex=key.public.hex(),
        resumed_record_hex=None if start.position is None else start.position.record,
        step=start.step,
        mesh=sizes,
        processes=worker.processes,
        environment={**environment(), "selfReplay": replayed},
        reason="start" if start.position is None else "resume",
        execution_class=execution_class(sizes, processes=worker.processes),
        initial_root=start.root if start.position is None else None,
    )


def _self_replay(worker: _Worker, start: Start, alg: str) -> str:
    """Compute the next gradient several times: an exact class is a claim that must be earned."""
    batch = worker.bench.batch(start.step + 1)
    roots = {
        gradient_digest(
            worker.bench.executor.gradient(start.state, batch.pieces),
            step=start.step + 1,
            alg=alg,
            exchange=process_exchange(),
        ).root
        for _ in range(_SELF_REPLAYS)
    }
    return "equal" if len(roots) == 1 else "different"


def _step_file(worker: _Worker, grant: AttemptGrant) -> StepFile:
    path = worker.run.step_file(attempt=grant.number, rank=worker.rank)
    if path.exists():
        recover(path)
    return StepFile(path)


def _place(attestation: Attestation | None) -> Position:
    if attestation is None:
        return Position(row="", record="")
    attestation.sync()
    assert attestation.position is not None
    return attestation.position


def _extra(attestation: Attestation | None, evaluation: Evaluation) -> dict[str, float | int]:
    seconds = 0.0 if attestation is None else attestation.seconds
    return {"digest_seconds": seconds, **evaluation.row()}


def _export(worker: _Worker, parameters: dict[str, Any]) -> None:
    whole = gathered(parameters)
    if worker.rank == 0:
        write_export(exported_bytes(whole), worker.run.export)
        _write_sample(worker, whole)
    if worker.processes > 1:
        from jax.experimental import multihost_utils

        # The driver closes the run once the workers have returned; the file must be there then.
        multihost_utils.sync_global_devices("anh export")


def _write_sample(worker: _Worker, parameters: dict[str, Any]) -> None:
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
