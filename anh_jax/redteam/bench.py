"""The harness of step attacks: one contract, its programs loaded once, trainers and auditors.

A cheating trainer goes through the library door for own loops (own_loop.py): its plan is native,
its states and gradients are kept, and the auditor judges them within bounds. What it signs is what
it computed.
"""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anh_jax import attested_run
from anh_jax.audit.auditor import Auditor, Findings
from anh_jax.audit.benches import Benches
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.transcript import Transcript, read_transcript
from anh_jax.bounds.step_check import StepCheck
from anh_jax.data.batches import Batch, BatchReader
from anh_jax.experiment import experiment_yaml, load_experiment
from anh_jax.export_weights import exported_bytes, gathered, write_export
from anh_jax.models.model import Model
from anh_jax.models.registry import build_loss, build_model
from anh_jax.own_loop import OwnRun, open_run
from anh_jax.preparation import PreparedContract, example_fields, prepare
from anh_jax.redteam.trainer import Trainer
from anh_jax.run_directory import RunDirectory
from anh_jax.training.executor import Executor, Tree
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.training.state import State
from anh_jax.workbench import MeshSizes, Workbench, materials_of
from attest import step_file
from attest.envelope import Envelope

_ONE = MeshSizes()


class RedTeamBench:
    """One contract to attack, in a folder that takes the runs."""

    def __init__(self, prepared: PreparedContract, folder: Path) -> None:
        self.prepared = prepared
        self.materials = materials_of(prepared)
        self._folder = folder
        self._loaded = {_ONE: Workbench(self.materials, _ONE, microbatch=None)}
        self._numbers = itertools.count(1)
        self._honest: RunDirectory | None = None
        self._once: dict[Hashable, Any] = {}

    @property
    def workbench(self) -> Workbench:
        """Return the contract's programs on one device."""
        return self._loaded[_ONE]

    @property
    def executor(self) -> Executor:
        """Return what runs the programs."""
        return self.workbench.executor

    @property
    def steps(self) -> int:
        """Return the steps of the contract."""
        return self.materials.contract.steps

    @property
    def batch_size(self) -> int:
        """Return the examples of a batch."""
        return self.materials.contract.batch_size

    @property
    def examples(self) -> Mapping[str, np.ndarray]:
        """Return all examples to train on, by field."""
        return self.materials.source.train

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` gives, made at the first call: what is compiled serves all attacks."""
        if name not in self._once:
            self._once[name] = make()
        return self._once[name]

    def model(self) -> Model:
        """Build the model in Python: what an attacker differentiates on its own."""
        return build_model(self.materials.experiment.model, example_fields(self.examples))

    def loss_of(self, parameters: Tree, examples: Mapping[str, Any]) -> jax.Array:
        """Return the summed loss of examples by the Python model, for derivatives of any kind."""
        model, loss = self.model(), build_loss(self.materials.experiment.loss)
        return loss(model.apply(parameters, examples, keys=None), examples).loss.sum()

    def piece(self, step: int) -> dict[str, jax.Array]:
        """Return the whole batch that the contract gives a step."""
        (piece,) = self.workbench.batch(step).pieces
        return dict(piece)

    def gradient(self, state: State, piece: Mapping[str, Any]) -> Tree:
        """Return the outputs of the contract's gradient program."""
        return self.executor.gradient(state, (piece,))

    def update(self, state: State, outputs: Tree, step: int) -> State:
        """Return the state after an honest update; `state` stays usable."""
        scalars = self.executor.scalars(outputs)
        return self.executor.update(kept_copy(state), outputs, scalars, step)

    def initial_state(self, seed: int | None = None) -> State:
        """Return state 0 of the contract, or of another seed."""
        own = self.materials.contract.seed
        return self.executor.initial_state(own if seed is None else seed)

    def stolen(self) -> Tree:
        """Return weights trained elsewhere, of the same shape: another seed, a shorter run."""
        return self.once("stolen", self._train_elsewhere)

    def _train_elsewhere(self) -> Tree:
        state = self.initial_state(self.materials.contract.seed + 1_000_003)
        for step in range(1, min(self.steps, 12) + 1):
            outputs = self.gradient(state, self.piece(step))
            state = self.update(state, outputs, step)
        return state["parameters"]

    def accuracy(self, parameters: Tree) -> float:
        """Return the share of right answers over the hold-out set."""
        counts = self.workbench.evaluate(parameters)
        return counts.correct / counts.total

    def honest(self) -> RunDirectory:
        """Return an honest run, trained at the first call."""
        if self._honest is None:
            self._honest = self.train(Trainer(self, frozenset()))
        return self._honest

    def variant(self, changes: tuple[str, ...]) -> "RedTeamBench":
        """Return the bench of this configuration with `key=value` changes."""
        return self.once(("variant", changes), lambda: self._changed(changes))

    def _changed(self, changes: tuple[str, ...]) -> "RedTeamBench":
        folder = self.new_folder()
        folder.mkdir(parents=True)
        config = folder / "config.yaml"
        config.write_text(experiment_yaml(self.prepared.experiment))
        return RedTeamBench(prepare(load_experiment(config, changes)), folder)

    def new_folder(self) -> Path:
        """Return where the next run goes."""
        return self._folder / f"run-{next(self._numbers)}"

    def train(self, trainer: Trainer) -> RunDirectory:
        """Let a trainer train, sign and close a real run."""
        first = trainer.first(self.initial_state())
        bench = _signing_for(self.workbench, trainer, first)
        run = open_run(self.prepared, self.new_folder(), bench=bench, bound=trainer.bound)
        trainer.begun(run.directory)
        state = run.initial_state
        for step in run.steps:
            outputs = trainer.gradient(state, step)
            state = trainer.update(state, outputs, step)
            _sign(run, step, outputs, state)
        directory = RunDirectory.open(run.finish())
        exported = trainer.exported(state["parameters"])
        if exported is not state["parameters"]:
            _export_instead(directory, exported)
        return directory

    def transcript(self, run: RunDirectory) -> Transcript:
        """Read what a run has signed, as its log would hold it."""
        return read_transcript(envelopes(run), run=attested_run.run_id(run))

    def audit(self, run: RunDirectory, steps: Sequence[int], *, told: Transcript | None = None,
              mesh: MeshSizes | None = None) -> Findings:  # fmt: skip
        """Audit steps of a run by the real auditor."""
        told = told or self.transcript(run)
        with Auditor(run, told, mesh=mesh, benches=self.benches(told)) as auditor:
            return auditor.audit(tuple(sorted(steps)))

    def benches(self, told: Transcript) -> Benches:
        """Return what all audits of this contract share: all runs have its contract and plan."""
        return self.once(
            "benches", lambda: Benches(self.materials, told.genesis, loaded=self._loaded)
        )

    def step_check(self) -> StepCheck:
        """Return the checks of a step, as auditors of this contract apply them."""
        told = self.transcript(self.honest())
        return self.once("step check", lambda: self.benches(told).step_check(self.workbench))

    def state(self, run: RunDirectory, step: int) -> State:
        """Return the state after a step that a run kept."""
        return RetainedSteps(run.retained).state(step, self.workbench.abstract_state())


def envelopes(run: RunDirectory) -> list[Envelope]:
    """Return everything that a run of one process has signed."""
    found = [run.statement("genesis"), run.statement("final")]
    for number in run.attempts():
        found.append(run.statement(f"attempt-{number}"))
        found.extend(step_file.read(run.step_file(attempt=number, rank=0)))
    return found


def _sign(run: OwnRun, step: int, outputs: Tree, state: State) -> None:
    run.step(
        step,
        gradient=outputs["gradient"],
        state=state,
        loss=outputs["loss"],
        statistics=outputs["statistics"],
    )


def _export_instead(run: RunDirectory, parameters: Tree) -> None:
    """Put other weights where the export lies and sign `final` over them, as their maker may."""
    run.statement_path("final").unlink()
    write_export(exported_bytes(gathered(parameters)), run.export)
    attested_run.close(run, {})


def _signing_for(bench: Workbench, trainer: Trainer, first: State) -> Workbench:
    """Return the workbench with state 0 and batch roots as the trainer signs them."""
    changed = object.__new__(Workbench)
    changed.__dict__.update(bench.__dict__)
    changed.executor = _Begun(bench.executor, first)
    changed.reader = _Rooted(bench.reader, trainer)
    return changed


class _Rooted(BatchReader):
    """The contract's batches, but for the roots that a trainer signs instead of theirs."""

    def __init__(self, honest: BatchReader, trainer: Trainer) -> None:
        self.__dict__.update(honest.__dict__)
        self._trainer = trainer

    def batch_for_step(self, step: int) -> Batch:
        """Return the batch of a step under the trainer's root."""
        batch = super().batch_for_step(step)
        return dataclasses.replace(batch, root=self._trainer.batch_root(step, batch.root))


class _Begun(Executor):
    """The contract's programs, but for state 0."""

    def __init__(self, honest: Executor, first: State) -> None:
        self.__dict__.update(honest.__dict__)
        self._first = first

    def initial_state(self, seed: int) -> State:
        """Return the state that this trainer begins with."""
        return {**self._first}
