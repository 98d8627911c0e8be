"""Opens the attempt under which one worker signs: earn the class, measure, ask, and be ready."""

import dataclasses
import time
from dataclasses import dataclass

from anh_jax.attested_run import genesis_of, run_id
from anh_jax.environment import environment, execution_class
from anh_jax.run_directory import RunDirectory
from anh_jax.training.bound_estimate import BoundSource
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.digest_policy import AUTO, POLICY_FACT, every_of, setting_of
from anh_jax.training.digester_choice import ChosenDigester
from anh_jax.training.observers.attestation import Attestation, DigestSchedule
from anh_jax.training.recorder import StepRecorder
from anh_jax.training.resume import Start
from anh_jax.training.seams import AttemptBroker, AttemptGrant, AttemptRequest, Reporter, WarmUp
from anh_jax.training.segments import SegmentCutter, open_segments
from anh_jax.training.warm_up import REPLAYS, drawn_again, measure, replay_gradient
from anh_jax.workbench import Workbench
from attest.keys import PrivateKey
from attest.step_file import StepFile, recover


@dataclass(frozen=True)
class Worker:
    """One process of the group that trains a run, and what it works with."""

    run: RunDirectory
    bench: Workbench
    checkpoints: TrainingCheckpoints
    digests: ChosenDigester
    rank: int
    processes: int
    reporter: Reporter


@dataclass(frozen=True)
class OpenAttempt:
    """What signs the attempt's rows, and the start to train from: its buffers may be new ones."""

    attestation: Attestation
    start: Start


@dataclass(frozen=True)
class _WarmedUp:
    start: Start
    replayed: str
    gradient_seconds: float
    measured: WarmUp | None


def open_attempt(worker: Worker, broker: AttemptBroker, start: Start) -> OpenAttempt:
    """Ask for an attempt that goes on from `start` and return what signs its rows."""
    experiment, contract = worker.bench.materials.experiment, worker.bench.materials.contract
    warm = _warm_up(worker, start)
    key = PrivateKey.generate()
    grant = broker.open_attempt(_request(worker, warm, key))
    key.save(worker.run.key_path(f"worker-{grant.number}-{worker.rank}"), "worker")
    run = run_id(worker.run)
    recorder = StepRecorder(
        run=run,
        attempt=grant.record,
        key=key,
        file=_step_file(worker, grant),
        previous=run if start.position is None else start.position.row,
        segments=_segments(worker, grant),
    )
    schedule = DigestSchedule(
        every=_policy(worker),
        compare_every=experiment.checkpoints.every_steps,
        last_step=contract.steps,
    )
    attestation = Attestation(
        recorder, worker.digests.digester, schedule, _declared_bound(worker, run, start)
    )
    return OpenAttempt(attestation, warm.start)


def _declared_bound(worker: Worker, run: str, start: Start) -> BoundSource | None:
    materials = worker.bench.materials
    setting = materials.experiment.attest.bound
    if setting == "off":
        return None
    # Reading programs operator by operator is imported where it is wanted: most runs start without.
    from anh_jax.training.declared_bound import DeclaredBound

    return DeclaredBound(
        materials.programs.stored["gradient"],
        materials.contract,
        run=run,
        every=int(setting.removeprefix("every ")),
        kept=None if start.position is None else start.position.bound,
    )


def _policy(worker: Worker) -> int:
    """Return the N that genesis states: chosen once, never adapted."""
    genesis = genesis_of(worker.run)
    why = genesis.environment.get(POLICY_FACT)
    if why is not None and worker.rank == 0:
        worker.reporter.phase(f"state digest {why}", 0.0)
    return every_of(genesis.digest_policy)


def _warm_up(worker: Worker, start: Start) -> _WarmedUp:
    executor, digester = worker.bench.executor, worker.digests.digester
    clock = time.perf_counter()
    replays = replay_gradient(executor, digester, start.state, worker.bench.batch(start.step + 1))
    worker.reporter.phase(
        f"one gradient computed {REPLAYS} times: {replays.words}", time.perf_counter() - clock
    )
    automatic = setting_of(worker.bench.materials.experiment) == AUTO
    if not automatic or start.position is not None or worker.run.has_statement("genesis"):
        return _WarmedUp(start, replays.words, replays.gradient_seconds, None)
    clock = time.perf_counter()
    measured = measure(executor, digester, start.state, replays)
    seed = worker.bench.materials.contract.seed
    state = drawn_again(executor, digester, seed=seed, root=start.root)
    worker.reporter.phase(f"{REPLAYS} updates and state digests timed", time.perf_counter() - clock)
    start = dataclasses.replace(start, state=state)
    return _WarmedUp(start, replays.words, replays.gradient_seconds, measured)


def _request(worker: Worker, warm: _WarmedUp, key: PrivateKey) -> AttemptRequest:
    start, sizes = warm.start, worker.bench.sizes.as_dict()
    facts = {"selfReplay": warm.replayed, "digester": worker.digests.words}
    return AttemptRequest(
        rank=worker.rank,
        public_key_hex=key.public.hex(),
        resumed_record_hex=None if start.position is None else start.position.record,
        step=start.step,
        mesh=sizes,
        processes=worker.processes,
        environment={**environment(), **facts},
        reason="start" if start.position is None else "resume",
        execution_class=execution_class(sizes, processes=worker.processes),
        initial_root=start.root if start.position is None else None,
        warm_up=warm.measured,
        gradient_seconds=warm.gradient_seconds,
    )


def _segments(worker: Worker, grant: AttemptGrant) -> SegmentCutter | None:
    logged = f"a segment for {grant.segments} or more steps" if grant.segments else "every step"
    if worker.rank == 0 and (grant.segments or grant.segments_why):
        why = grant.segments_why and f" ({grant.segments_why})"
        worker.reporter.phase(f"logged: {logged}{why}", 0.0)
    return open_segments(
        worker.run,
        grant,
        run_id=run_id(worker.run),
        rank=worker.rank,
        last_step=worker.bench.materials.contract.steps,
    )


def _step_file(worker: Worker, grant: AttemptGrant) -> StepFile:
    path = worker.run.step_file(attempt=grant.number, rank=worker.rank)
    if path.exists():
        recover(path)
    return StepFile(path)
