"""Trainers, honest and not: real runs of a tiny perceptron in which one thing is wrong.

All runs share one contract and its compiled programs. A fault is planted where a cheating trainer
would plant it, below the signing: every row, genesis and final record is signed over what was
really computed.
"""

import copy
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anh_jax.audit.auditor as auditor_module
import anh_jax.audit.benches as benches_module
import anh_jax.training.worker as worker_module
from anh_jax import attested_run
from anh_jax.audit.refuting_steps import OpenedStep
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.transcript import Transcript, read_transcript
from anh_jax.bounds.spread import SpreadEstimator
from anh_jax.experiment import experiment_yaml, load_experiment
from anh_jax.preparation import prepare
from anh_jax.run_directory import RunDirectory
from anh_jax.training.executor import Executor
from anh_jax.training.loop import StepBatch
from anh_jax.workbench import Materials, MeshSizes, Workbench, materials_of
from attest import step_file
from attest.envelope import Envelope
from launch.attempt_broker import DirectBroker
from launch.driver import RunDriver

STEPS = 24
BAD = 13
CONFIG = f"""
model: {{name: mlp, hidden: [16], classes: 10}}
data: {{name: digits, holdout: {{fraction: 0.2}}}}
loss: {{name: softmax_cross_entropy}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.01, clip_norm: 1.0}}
training: {{steps: {STEPS}, batch_size: 48, seed: 3}}
properties: [{{name: accuracy, numerator: 1, denominator: 2, margin: 3}}]
evaluation: {{every_steps: 0}}
checkpoints: {{every_steps: 8, keep: 9}}
"""


class Fault:
    """An honest trainer; subclasses override what they do wrong."""

    def initial_state(self, state: Any, bench: Workbench) -> Any:
        return state

    def batch(self, batch: StepBatch) -> StepBatch:
        return batch

    def gradient(self, outputs: Any, step: int) -> Any:
        return outputs

    def update(self, before: Any, after: Any, step: int) -> Any:
        return after

    def exported(self, parameters: Any) -> Any:
        return parameters


class LargerRate(Fault):
    """Takes one step a little too far."""

    def __init__(self, factor: float, step: int = BAD) -> None:
        self._factor = np.float32(factor)
        self._step = step

    def update(self, before: Any, after: Any, step: int) -> Any:
        if step != self._step:
            return after
        moved = jax.tree.map(
            lambda old, new: old + self._factor * (new - old),
            before["parameters"],
            after["parameters"],
        )
        return {**after, "parameters": moved}


class LateSlot(Fault):
    """Leaves one element of a moment as it was."""

    def update(self, before: Any, after: Any, step: int) -> Any:
        if step != BAD:
            return after
        optimizer = copy.deepcopy(after["optimizer"])
        kernel = optimizer["first"]["layers"]["0"]["kernel"]
        optimizer["first"]["layers"]["0"]["kernel"] = kernel.at[3, 5].multiply(np.float32(0.9))
        return {**after, "optimizer": optimizer}


class OtherKey(Fault):
    """Draws what it likes from one step on: the key is copied by no rule of its own."""

    def update(self, before: Any, after: Any, step: int) -> Any:
        if step != BAD:
            return after
        words = jnp.array([7, 7], jnp.uint32)
        return {**after, "key": jax.random.wrap_key_data(words, impl="threefry2x32")}


class SkippedCount(Fault):
    """Counts one step as two."""

    def update(self, before: Any, after: Any, step: int) -> Any:
        return after if step != BAD else {**after, "step": after["step"] + jnp.uint32(1)}


class OtherStart(Fault):
    """Starts from one weight of its own."""

    def initial_state(self, state: Any, bench: Workbench) -> Any:
        parameters = copy.deepcopy(state["parameters"])
        kernel = parameters["layers"]["0"]["kernel"]
        parameters["layers"]["0"]["kernel"] = kernel.at[2, 3].set(np.float32(0.25))
        return {**state, "parameters": parameters}


class Detour(Fault):
    """Leaves the honest states for one step and comes back to them."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._kept: Any = None

    def update(self, before: Any, after: Any, step: int) -> Any:
        if step == BAD:
            self._kept = kept_copy(after)
            moved = jax.tree.map(lambda x: x * np.float32(1.01), after["parameters"])
            return {**after, "parameters": moved}
        if step != BAD + 1:
            return after
        executor = self._bench.executor
        outputs = executor.gradient(self._kept, self._bench.batch(step).pieces)
        return executor.update(self._kept, outputs, executor.scalars(outputs), step)


class WrongLoss(Fault):
    """States a better loss than it had."""

    def gradient(self, outputs: Any, step: int) -> Any:
        return outputs if step != BAD else {**outputs, "loss": outputs["loss"] * np.float32(0.5)}


class NotANumber(Fault):
    """Hides a step behind a gradient that is not a number."""

    def gradient(self, outputs: Any, step: int) -> Any:
        if step != BAD:
            return outputs
        return {**outputs, "gradient": jax.tree.map(lambda x: x * np.nan, outputs["gradient"])}


class FaultyExecutor(Executor):
    """The contract's programs with a fault between them."""

    def __init__(self, bench: Workbench, fault: Fault) -> None:
        self.__dict__.update(bench.executor.__dict__)
        self._bench = bench
        self._honest = bench.executor
        self._fault = fault

    def initial_state(self, seed: int) -> Any:
        return self._fault.initial_state(self._honest.initial_state(seed), self._bench)

    def gradient(self, state: Any, pieces: Any) -> Any:
        step = int(state["step"]) + 1
        return self._fault.gradient(self._honest.gradient(state, pieces), step)

    def scalars(self, outputs: Any) -> Any:
        return self._honest.scalars(outputs)

    def update(self, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
        before = {**state, "parameters": jax.tree.map(jnp.copy, state["parameters"])}
        return self._fault.update(before, self._honest.update(state, outputs, scalars, step), step)

    def evaluate(self, parameters: Any, examples: Any) -> Any:
        return self._honest.evaluate(parameters, examples)


class FaultyBench(Workbench):
    """A workbench whose batches and executor have a fault."""

    def __init__(self, bench: Workbench, fault: Fault) -> None:
        self.__dict__.update(bench.__dict__)
        self._fault = fault
        self.executor = FaultyExecutor(bench, fault)

    def batches(self, first: int, last: int) -> Iterator[StepBatch]:
        for step in range(first, last + 1):
            yield self._fault.batch(self.batch(step))


@dataclass
class QuietReporter:
    """Takes news silently and asks to stop after a step."""

    stop_after: int | None = None
    asked: int = 0

    def phase(self, name: str, seconds: float) -> None: ...

    def checkpoint(self, step: int, path: Path) -> None: ...

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_after


class Workshop:
    """One contract, loaded once for each mesh, and the runs trained under it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "config.yaml").write_text(CONFIG)
        self.prepared = prepare(load_experiment(folder / "config.yaml"))
        self._template = RunDirectory.create(folder / "template")
        self.prepared.write(self._template)
        self.materials: Materials = materials_of(self.prepared)
        self._benches: dict[MeshSizes, Workbench] = {}
        self._made = 0
        self._spreads: SpreadEstimator | None = None

    def bench(self, materials: Any, sizes: MeshSizes, *, microbatch: int | None) -> Workbench:
        """Stand in for `Workbench`: programs are compiled once for all runs."""
        if sizes not in self._benches:
            self._benches[sizes] = Workbench(self.materials, sizes, microbatch=microbatch)
        bench = copy.copy(self._benches[sizes])
        bench.materials = materials or self.materials
        return bench

    def new_run(self, *changes: str) -> RunDirectory:
        """Return a run directory in which only the contract lies; `changes` as `key=value`."""
        self._made += 1
        root = self._folder / f"run-{self._made}"
        shutil.copytree(self._template.root, root)
        experiment = load_experiment(root / "config.yaml", changes)
        (root / "config.yaml").write_text(experiment_yaml(experiment))
        return RunDirectory.open(root)

    def read(self, run: RunDirectory) -> Materials:
        """Stand in for `read_materials`: all but the experiment is the same for all runs."""
        experiment = load_experiment(run.root / "config.yaml")
        return dataclasses.replace(self.materials, experiment=experiment)

    def train(
        self, run: RunDirectory, fault: Fault, *, stop_after: int | None = None
    ) -> RunDirectory:
        """Train (on) with a fault; the final record is signed once all steps are."""
        driver = RunDriver(run)
        try:
            with pytest.MonkeyPatch.context() as patch:
                self._plant(patch, fault)
                worker_module.train_worker(
                    run.root,
                    rank=0,
                    processes=1,
                    broker=DirectBroker(driver.grant),
                    reporter=QuietReporter(stop_after),
                    workbench=self._faulty(fault),
                )
        finally:
            driver._log.close()
        if stop_after is None:
            attested_run.close(run, {})
        return run

    def _faulty(self, fault: Fault) -> Callable[..., Workbench]:
        def bench(materials: Any, sizes: MeshSizes, *, microbatch: int | None) -> Workbench:
            return FaultyBench(self.bench(materials, sizes, microbatch=microbatch), fault)

        return bench

    def _plant(self, patch: pytest.MonkeyPatch, fault: Fault) -> None:
        honest = worker_module.exported_bytes
        patch.setattr(worker_module, "read_materials", self.read)
        patch.setattr(
            worker_module, "exported_bytes", lambda values: honest(fault.exported(values))
        )

    def spreads(self, stored: Any, rules: Any) -> SpreadEstimator:
        """Stand in for `SpreadEstimator`: the samples' program is compiled once for all audits."""
        if self._spreads is None:
            self._spreads = SpreadEstimator(stored, rules)
        return self._spreads

    @contextmanager
    def auditing(self) -> Iterator[None]:
        """Let auditors use the programs that are compiled already."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auditor_module, "read_materials", self.read)
            patch.setattr(benches_module, "Workbench", self.bench)
            patch.setattr(benches_module, "SpreadEstimator", self.spreads)
            yield


def only(findings: Any) -> Any:
    """Return the one result of an audit of one step."""
    (result,) = findings.results
    return result


def envelopes(run: RunDirectory) -> list[Envelope]:
    """Return everything that a run of one process has signed, as its log would hold it."""
    found = [run.statement("genesis"), run.statement("final")]
    for number in run.attempts():
        found.append(run.statement(f"attempt-{number}"))
        path = run.step_file(attempt=number, rank=0)
        if path.exists():
            found.extend(step_file.read(path))
    return found


def transcript(run: RunDirectory) -> Transcript:
    """Read a run's transcript from its files."""
    return read_transcript(envelopes(run), run=attested_run.run_id(run))


def opened_step(workshop: Workshop, run: RunDirectory, fault: Fault, step: int) -> OpenedStep:
    """Return a step of a run as its trainer has it: the trees that its rows commit."""
    bench = FaultyBench(workshop.bench(None, MeshSizes(), microbatch=None), fault)
    executor, told = bench.executor, transcript(run)
    state = executor.initial_state(workshop.materials.contract.seed)
    for batch in bench.batches(1, step - 1):
        outputs = executor.gradient(state, batch.pieces)
        state = executor.update(state, outputs, executor.scalars(outputs), batch.step)
    before = kept_copy(state)
    (batch,) = bench.batches(step, step)
    outputs = executor.gradient(state, batch.pieces)
    scalars = executor.scalars(outputs)
    after = executor.update(state, outputs, scalars, step)
    reference = executor._honest.update(kept_copy(before), outputs, scalars, step)
    rows = told.line.rows
    previous = rows[step - 2].row if step > 1 else None
    return OpenedStep(rows[step - 1], previous, before, outputs, after, reference)
