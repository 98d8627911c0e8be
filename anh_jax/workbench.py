"""Everything it takes to execute the steps of a run's contract on this machine.

Opened from stored files alone and checked against the contract, so trainer and auditor start from
the same bytes; only the mesh and the microbatch are the executor's own choice.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.class_support import check_runnable
from anh_jax.data.batches import (
    Batch,
    BatchReader,
    evaluation_batches,
    local_rows,
    place_batch,
)
from anh_jax.data.manifest import Manifest, build_manifest, load_manifest, save_manifest
from anh_jax.data.sources import Source, load_source
from anh_jax.errors import DataError, ProgramError
from anh_jax.experiment import Experiment, contract_config_bytes, load_experiment
from anh_jax.preparation import PreparedContract
from anh_jax.program.class_check import check_class
from anh_jax.program.programs import ContractPrograms, read_programs
from anh_jax.run_directory import RunDirectory
from anh_jax.training.constants import ConstantsTable
from anh_jax.training.executor import Executor
from anh_jax.training.loop import StepBatch
from anh_jax.training.mesh import batch_sharding, make_mesh, place_examples
from anh_jax.training.optimizer import build_optimizer
from anh_jax.training.state import abstract_state
from attest.contract import Contract

# Large enough to keep a device busy, small enough to fit beside a training state.
_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Counts:
    """What `evaluate` counted over a set: right answers, all answers, mean loss per answer."""

    correct: int
    total: int
    loss: float


@dataclass(frozen=True)
class MeshSizes:
    """The sizes of the mesh axes that an executor chose."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def as_dict(self) -> dict[str, int]:
        """Return the sizes by axis name."""
        return {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}


@dataclass(frozen=True)
class Materials:
    """A contract's stored parts, read from a run directory and checked against it."""

    contract: Contract
    experiment: Experiment
    programs: ContractPrograms
    constants: ConstantsTable
    training: Manifest
    holdout: Manifest
    source: Source


def read_materials(run: RunDirectory, *, source: Source | None = None) -> Materials:
    """Read what the contract names; `source` holds the data where they are at hand already.

    Raises AnhError naming the file that is missing or is not what the contract names, or DataError
    where this machine's data are not the committed ones.
    """
    contract = Contract.from_bytes(run.contract_bytes())
    experiment = load_experiment(run.root / "config.yaml")
    if hashlib.sha256(contract_config_bytes(experiment)).hexdigest() != contract.config:
        raise ProgramError(
            f"{run.root / 'config.yaml'}: is not the configuration that the contract names; "
            "restore it"
        )
    kind = build_optimizer(experiment.optimizer).kind
    if kind != contract.optimizer.kind:
        # An elementwise rule that is called bounded would be judged more loosely than it can be.
        raise ProgramError(
            f"{run.root / 'contract.json'}: calls {contract.optimizer.name} "
            f"{contract.optimizer.kind}, which is {kind}"
        )
    ids = {
        name: getattr(contract.programs, name)
        for name in ("init", "gradient", "scalars", "update", "evaluate")
    }
    table = ConstantsTable.from_bytes((run.programs / "constants.f32").read_bytes())
    if table.digest != contract.constants:
        raise ProgramError(
            f"{run.programs / 'constants.f32'}: is not the contract's table; restore it"
        )
    programs = read_programs(run.programs, ids, update=kind)
    check_class(programs.stored, contract.numerics.rules)
    source = load_source(experiment.data) if source is None else source
    holdout = contract.data.holdout
    if holdout is None:
        raise DataError(f"{run.root}: the contract names no hold-out set, which evaluation needs")
    return Materials(
        contract=contract,
        experiment=experiment,
        programs=programs,
        constants=table,
        training=_manifest(run, "training", source.train, contract.data.root),
        holdout=_manifest(run, "holdout", source.holdout, holdout.root),
        source=source,
    )


def materials_of(prepared: PreparedContract) -> Materials:
    """Return the materials of a contract that was just prepared in this process."""
    return Materials(
        contract=prepared.contract,
        experiment=prepared.experiment,
        programs=prepared.programs,
        constants=prepared.constants,
        training=prepared.training,
        holdout=prepared.holdout,
        source=prepared.source,
    )


class Workbench:
    """Materials, a mesh and the programs loaded for it."""

    def __init__(self, materials: Materials, sizes: MeshSizes, *, microbatch: int | None) -> None:
        self.materials = materials
        self.sizes = sizes
        self._holdout_checked = False
        self.mesh = make_mesh(**sizes.as_dict())
        check_runnable(materials.contract.numerics.class_, jax.default_backend())
        self._sharding = batch_sharding(self.mesh)
        batch_size = materials.contract.batch_size
        self._parts = _parts(batch_size, microbatch, sizes.data * sizes.fsdp)
        self.executor = Executor(materials.programs.stored, materials.constants.values, self.mesh)
        self.reader = BatchReader(
            materials.source.train,
            manifest=materials.training,
            seed=materials.contract.seed,
            batch_size=batch_size,
            rows=local_rows(self._sharding, batch_size),
        )

    def abstract_state(self) -> dict[str, Any]:
        """Return shape, dtype and sharding of each leaf of the state on this mesh."""
        return abstract_state(self.materials.programs.stored["init"].signature, self.mesh)

    def abstract_outputs(self) -> dict[str, Any]:
        """Return shape, dtype and sharding of each output of the gradient program on this mesh."""
        return abstract_state(self.materials.programs.stored["gradient"].signature, self.mesh)

    def batches(self, first: int, last: int) -> Iterator[StepBatch]:
        """Yield the batches of steps `first` to `last` on the mesh, read ahead in threads."""
        for batch in self.reader.batches(first, last):
            yield self._placed(batch)

    def batch(self, step: int) -> StepBatch:
        """Return the batch of one step on the mesh."""
        return self._placed(self.reader.batch_for_step(step))

    def evaluate(self, parameters: Mapping[str, Any]) -> Counts:
        """Count over the hold-out set; every process of the mesh calls it together.

        Raises DataError where the set is not the one that the contract commits.
        """
        self._check_holdout()
        correct, total, loss = 0, 0, 0.0
        size = _EVALUATION_BATCH * self.sizes.data * self.sizes.fsdp
        batches = list(evaluation_batches(self.materials.source.holdout, size))
        for arrays in batches:
            counted = self.executor.evaluate(parameters, place_examples(self.mesh, arrays))
            correct += int(np.asarray(counted["correct"].addressable_data(0)))
            total += int(np.asarray(counted["total"].addressable_data(0)))
            loss += float(np.asarray(counted["loss"].addressable_data(0)))
        return Counts(correct=correct, total=total, loss=loss / max(total, 1))

    def _check_holdout(self) -> None:
        # Counts are signed under the committed root, so the examples are hashed before they count.
        if self._holdout_checked:
            return
        found = build_manifest(self.materials.source.holdout, where="data (hold-out set)")
        if found.root != self.materials.holdout.root:
            raise DataError(
                f"data (hold-out set): root {found.root.hex()[:16]}, the contract names "
                f"{self.materials.holdout.root.hex()[:16]}; restore the committed examples"
            )
        self._holdout_checked = True

    def _placed(self, batch: Batch) -> StepBatch:
        rows = len(batch.examples["id"]) // self._parts
        size = self.materials.contract.batch_size // self._parts
        pieces = tuple(
            place_batch(
                {
                    name: array[part * rows : (part + 1) * rows]
                    for name, array in batch.examples.items()
                },
                self._sharding,
                size,
            )
            for part in range(self._parts)
        )
        return StepBatch(step=batch.step, pieces=pieces, root=batch.root.hex())


def _manifest(
    run: RunDirectory, name: str, arrays: Mapping[str, np.ndarray], root: str
) -> Manifest:
    path = run.data / f"{name}.leaves"
    if path.exists():
        return load_manifest(path, root=bytes.fromhex(root))
    manifest = build_manifest(arrays, where=f"data ({name})")
    if manifest.root.hex() != root:
        raise DataError(
            f"data ({name}): root {manifest.root.hex()[:16]}, the contract names {root[:16]}; "
            "this machine has other data than the run was started with"
        )
    save_manifest(manifest, path)
    return manifest


def _parts(batch_size: int, microbatch: int | None, shards: int) -> int:
    if microbatch is None:
        return 1
    if batch_size % microbatch or microbatch % shards:
        raise ProgramError(
            f"plan.microbatch: {microbatch} must divide the batch of {batch_size} and be a "
            f"multiple of its {shards} shards"
        )
    return batch_size // microbatch
