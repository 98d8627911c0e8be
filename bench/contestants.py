"""The training runs that `overhead.py` compares: one contract, one process, several ways to run it.

Every contestant has a state, a stream of batches and observers of its own, and takes its steps
through the project's own loop, a block at a time; between its blocks it rests.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from anh_jax import attested_run
from anh_jax.digest.host import tree_digest
from anh_jax.environment import environment, execution_class
from anh_jax.experiment import load_experiment
from anh_jax.models.registry import build_loss, build_model
from anh_jax.preparation import PreparedContract, example_fields, plan_digest, prepare
from anh_jax.program.programs import ProgramSource, program_sources
from anh_jax.program.signature import ProgramSignature
from anh_jax.program.tensors import sharding_of
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import Position
from anh_jax.training.digest_policy import every_of
from anh_jax.training.digester_choice import choose_digester
from anh_jax.training.loop import CompletedStep, StepBatch, train
from anh_jax.training.observers.attestation import Attestation, DigestSchedule
from anh_jax.training.observers.metrics import MetricsFile
from anh_jax.training.optimizer import build_optimizer
from anh_jax.training.recorder import StepFacts, StepRecorder
from anh_jax.training.seams import AttemptRequest
from anh_jax.training.state import gradient_part, moved, moving_part, seed_words
from anh_jax.workbench import Workbench
from attest.canonical import parse_hex_float
from attest.keys import PrivateKey
from attest.log.shipper import Shipper
from attest.step_file import StepFile
from launch.logs import open_run_log


def prepared(config: Path, steps: int) -> PreparedContract:
    """Prepare the contract of a shipped configuration with that many steps."""
    return prepare(load_experiment(config, (f"training.steps={steps}",)))


class JittedPrograms:
    """The functions that a contract's programs were exported from, jitted as anybody would.

    Same shardings, same donation, same matmul precision; calls like `Executor`.
    """

    def __init__(self, contract: PreparedContract, bench: Workbench) -> None:
        experiment = contract.experiment
        fields = example_fields(contract.source.train)
        sources = program_sources(
            build_model(experiment.model, fields),
            build_loss(experiment.loss),
            build_optimizer(experiment.optimizer),
            fields,
        )
        self._constants = contract.constants.values
        stored = contract.programs.stored

        def jitted(name: str, donate: Sequence[int] = ()) -> Callable[..., Any]:
            return _jitted(sources[name], stored[name].signature, bench.mesh, donate)

        self._init = jitted("init")
        self._gradient = jitted("gradient")
        self._scalars = jitted("scalars")
        self._update = jitted("update", donate=(0,))

    def initial_state(self, seed: int) -> dict[str, Any]:
        """Return state 0."""
        return self._init(seed_words(seed))

    def gradient(self, state: dict[str, Any], pieces: Sequence[Mapping[str, Any]]) -> Any:
        """Return the sums over the one piece of a batch."""
        (piece,) = pieces
        return self._gradient(gradient_part(state), piece, state["key"])

    def scalars(self, outputs: Any) -> Any:
        """Return norm, finite flag and weight."""
        return self._scalars(outputs)

    def update(self, state: dict[str, Any], outputs: Any, scalars: Any, step: int) -> Any:
        """Return the state after a step."""
        constants = self._constants[step - 1]
        updated = self._update(moving_part(state), outputs["gradient"], scalars, constants)
        return moved(state, updated)


def _jitted(
    source: ProgramSource, signature: ProgramSignature, mesh: Any, donate: Sequence[int] = ()
) -> Callable[..., Any]:
    def shardings(tree: Any) -> Any:
        return jax.tree.map(lambda tensor: sharding_of(mesh, tensor.spec), tree)

    return jax.jit(
        source.function,
        in_shardings=tuple(shardings(tree) for tree in source.arguments.values()),
        out_shardings=shardings(signature.output_tree()),
        donate_argnums=tuple(donate),
    )


@dataclass
class Costs:
    """CPU seconds of the training thread, one entry a step, and of the shipping thread in all."""

    digest: list[float] = field(default_factory=list)
    signing: list[float] = field(default_factory=list)
    shipping: float = 0.0

    def clear(self) -> None:
        """Forget what was noted so far."""
        self.digest.clear()
        self.signing.clear()
        self.shipping = 0.0


@dataclass(frozen=True)
class Block:
    """Seconds that a block of steps took: on the wall, and of all threads' CPU."""

    wall: float
    cpu: float


class Contestant:
    """One way to train: `block` takes the next steps and returns the seconds that they took."""

    def __init__(
        self, name: str, bench: Workbench, executor: Any, observers: Sequence[Any]
    ) -> None:
        self.name = name
        self.executor = executor
        self.state = executor.initial_state(bench.materials.contract.seed)
        self._observers = observers
        self._batches = bench.batches(1, bench.materials.contract.steps)

    def block(self, steps: int) -> Block:
        """Take `steps` steps, and wait until the device is done with them."""
        batches: Iterator[StepBatch] = itertools.islice(self._batches, steps)
        start, cpu = time.perf_counter(), time.process_time()
        self.state = train(self.executor, self.state, batches, self._observers, _never)
        jax.block_until_ready(self.state)
        return Block(time.perf_counter() - start, time.process_time() - cpu)

    def warmed_up(self) -> None:
        """Forget what was noted so far: it was compiling."""


class AttestedContestant(Contestant):
    """Trains as `anh train` does: digests, signs, appends, and ships to a log of its own.

    What a block leaves unshipped is shipped during the next one: while others run, it holds still.
    """

    def __init__(self, contract: PreparedContract, bench: Workbench, root: Path) -> None:
        run = RunDirectory.create(root)
        contract.write(run)
        self.costs = Costs()
        self._recorder = _begin(run, bench)
        experiment = contract.experiment
        digests = choose_digester(experiment.attest.digester, bench.mesh, alg=experiment.attest.alg)
        schedule = DigestSchedule(
            every=every_of(experiment.attest.unmeasured_digest),
            compare_every=experiment.checkpoints.every_steps,
            last_step=contract.contract.steps,
        )
        attestation = Attestation(self._recorder, digests.digester, schedule)
        metrics = MetricsFile(run.metrics, first_step=1, digest_seconds=attestation.seconds)
        timed = _Timed(attestation, self._recorder, self.costs)
        super().__init__("attested", bench, bench.executor, (timed, metrics))
        self._log = open_run_log(run)
        self._shipper = Shipper(run.root, self._log)
        self._resting = ExitStack()
        self._resting.enter_context(self._shipper.paused())
        self._shipper.start()

    def block(self, steps: int) -> Block:
        """Take `steps` steps with the shipper at work beside them."""
        self._resting.close()
        before = _thread_seconds("shipper")
        block = super().block(steps)
        self._resting.enter_context(self._shipper.paused())
        self.costs.shipping += _thread_seconds("shipper") - before
        return block

    def warmed_up(self) -> None:
        """Forget what was noted so far."""
        self.costs.clear()

    def close(self) -> int:
        """Ship the rest; return how many rows the log holds."""
        self._resting.close()
        self._recorder.close()
        progress = self._shipper.drain()
        self._shipper.stop()
        self._log.close()
        return progress.logged


class _Timed:
    """Stands around the attestation and notes what its thread spent, digest and signing apart."""

    def __init__(self, attestation: Attestation, recorder: _TimedRecorder, costs: Costs) -> None:
        self._attestation = attestation
        self._recorder = recorder
        self._costs = costs

    def after_step(self, completed: CompletedStep) -> None:
        """Attest the step."""
        start = time.thread_time()
        self._attestation.after_step(completed)
        spent = time.thread_time() - start
        self._costs.signing.append(self._recorder.spent)
        self._costs.digest.append(spent - self._recorder.spent)


class _TimedRecorder(StepRecorder):
    """A recorder that notes the CPU seconds of its last row."""

    spent = 0.0

    def record(self, facts: StepFacts) -> Position:
        """Sign and append a row."""
        start = time.thread_time()
        position = super().record(facts)
        self.spent = time.thread_time() - start
        return position


def _begin(run: RunDirectory, bench: Workbench) -> _TimedRecorder:
    experiment, contract = bench.materials.experiment, bench.materials.contract
    state = bench.executor.initial_state(contract.seed)
    sizes = bench.sizes.as_dict()
    identity = attested_run.begin(
        run,
        attested_run.Origin(
            state_root=tree_digest(state, step=0, alg=experiment.attest.alg).root.hex(),
            plan=plan_digest(experiment),
            operator=experiment.attest.operator,
            execution_class=execution_class(sizes, processes=1),
            environment=environment(),
            digest_policy=experiment.attest.unmeasured_digest,
            alg=experiment.attest.alg,
            init=bench.materials.programs.init_kind,
        ),
    )
    key = PrivateKey.generate()
    request = AttemptRequest(
        rank=0,
        public_key_hex=key.public.hex(),
        resumed_record_hex=None,
        step=0,
        mesh=sizes,
        processes=1,
        environment=environment(),
        reason="start",
        execution_class=execution_class(sizes, processes=1),
    )
    grant = attested_run.sign_attempt(run, [request])
    return _TimedRecorder(
        run=identity,
        attempt=grant.record,
        key=key,
        file=StepFile(run.step_file(attempt=grant.number, rank=0)),
        previous=identity,
        bound=parse_hex_float(contract.numerics.cap),
    )


def unattested(name: str, bench: Workbench, executor: Any, metrics: Path) -> Contestant:
    """Return a contestant that only trains and writes its metrics."""
    file = MetricsFile(metrics, first_step=1)
    return Contestant(name, bench, executor, (file,))


def _thread_seconds(name: str) -> float:
    """Return the CPU seconds of a running thread of this process."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident is not None:
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    raise LookupError(f"no thread {name!r} is running")


def _never(step: int) -> bool:
    return False
