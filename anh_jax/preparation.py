"""Makes a contract out of an experiment: programs, tables, data roots, and the one JSON of it all.

Everything the contract names by digest is written beside it, so that resuming and auditing load
stored bytes and never trace, tabulate or export again.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from anh_jax.data.examples import example_count
from anh_jax.data.manifest import Manifest, build_manifest, save_manifest
from anh_jax.data.sources import Source, load_source
from anh_jax.errors import ConfigError, DataError
from anh_jax.experiment import Experiment, contract_config_bytes, experiment_yaml
from anh_jax.experiment_choices import ImportedLoss, ImportedModel
from anh_jax.experiment_errors import suggestion
from anh_jax.experiment_groups import Numerics as NumericsConfig
from anh_jax.models.compute import compute_of
from anh_jax.models.model import Model
from anh_jax.models.registry import build_loss, build_model
from anh_jax.program.cache import cached_programs
from anh_jax.program.programs import ContractPrograms, build_programs
from anh_jax.program.state_rules import rules_bytes
from anh_jax.program.tree import path_text
from anh_jax.run_directory import RunDirectory, write_atomically
from anh_jax.training.constants import ConstantsTable
from anh_jax.training.optimizer import Optimizer, build_optimizer
from attest import canonical
from attest.contract import (
    Contract,
    Data,
    Holdout,
    Init,
    Numerics,
    Programs,
    PropertyRule,
    Retention,
)
from attest.contract import Optimizer as NamedOptimizer

ORDER = "feistel-sha256/v1"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PreparedContract:
    """A contract with everything it names by digest.

    Attributes:
        contract: the contract itself.
        experiment: what it was made from; its other groups say how this trainer runs it.
        programs: the five stored programs and the rules of the state's paths.
        constants: the host constants of every step, float32[steps, constants].
        training, holdout: the leaf hashes of the examples.
        source: the examples themselves.
    """

    contract: Contract
    experiment: Experiment
    programs: ContractPrograms
    constants: ConstantsTable
    training: Manifest
    holdout: Manifest
    source: Source

    def write(self, run: RunDirectory) -> None:
        """Write everything into a new run directory; contract.json comes last."""
        self.programs.save(run.programs)
        write_atomically(run.programs / "constants.f32", self.constants.to_bytes())
        write_atomically(run.programs / "rules.json", rules_bytes(self.programs.rules))
        write_atomically(run.programs / "config.json", contract_config_bytes(self.experiment))
        write_atomically(run.programs / "plan.json", plan_bytes(self.experiment))
        save_manifest(self.training, run.data / "training.leaves")
        save_manifest(self.holdout, run.data / "holdout.leaves")
        write_atomically(run.root / "config.yaml", experiment_yaml(self.experiment).encode())
        write_atomically(run.root / "contract.json", self.contract.to_bytes())


def prepare(
    experiment: Experiment,
    *,
    model: Model | None = None,
    source: Source | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PreparedContract:
    """Export the programs, hash the examples and write the contract of an experiment.

    `model` and `source` stand in for the configured ones where a loop of your own has them in
    hand. `cache` is a folder that keeps exported programs. `progress` is called with (examples
    hashed, examples in all). Raises AnhError where a part
    is missing or does not fit.
    """
    source = source or load_source(experiment.data)
    training = build_manifest(source.train, where="data", progress=progress)
    holdout = build_manifest(source.holdout, where="data (hold-out set)")
    if example_count(source.train) < experiment.training.batch_size:
        raise DataError(
            f"training.batch_size: {experiment.training.batch_size} is more than the "
            f"{example_count(source.train)} training examples; choose a smaller batch"
        )
    fields = example_fields(source.train)
    optimizer = build_optimizer(experiment.optimizer)
    rules = experiment.numerics.rules

    def build() -> ContractPrograms:
        built = model or build_model(experiment.model, fields, compute_of(rules))
        loss = build_loss(experiment.loss)
        return build_programs(built, loss, optimizer, fields, rules=rules)

    shapes = {name: (array.shape, array.dtype.str) for name, array in fields.items()}
    imported = isinstance(experiment.model, ImportedModel) or isinstance(
        experiment.loss, ImportedLoss
    )
    programs = cached_programs(
        None if model is not None or imported else cache,
        contract_config_bytes(experiment),
        shapes,
        build,
        update=optimizer.kind,
    )
    _check_null_gradients(experiment.numerics, programs)
    constants = optimizer.constants_table(experiment.training.steps)
    roots = Data(
        root=training.root.hex(),
        examples=len(training),
        order=ORDER,
        holdout=Holdout(root=holdout.root.hex(), examples=len(holdout)),
    )
    contract = _contract(experiment, programs, constants, roots, optimizer)
    return PreparedContract(
        contract=contract,
        experiment=experiment,
        programs=programs,
        constants=constants,
        training=training,
        holdout=holdout,
        source=source,
    )


def _check_null_gradients(numerics: NumericsConfig, programs: ContractPrograms) -> None:
    inputs = programs.stored["gradient"].signature.inputs
    known = [path_text(leaf.path[2:]) for leaf in inputs if leaf.path[1:2] == ("parameters",)]
    for name in numerics.null_gradients:
        if name not in known:
            raise ConfigError(
                f"numerics.null_gradients: {name} is no parameter of the model"
                f"{suggestion(name, known)}; they are {', '.join(known)}"
            )


def plan_bytes(experiment: Experiment) -> bytes:
    """Return the canonical JSON of the plan: how this trainer computes the programs."""
    return canonical.encode(msgspec.to_builtins(experiment.plan))


def plan_digest(experiment: Experiment) -> str:
    """Return the SHA-256 of the plan in hex, which genesis names."""
    return hashlib.sha256(plan_bytes(experiment)).hexdigest()


def example_fields(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return one example of each field: shape and dtype without the batch."""
    return {name: array[0] for name, array in arrays.items()}


def _contract(
    experiment: Experiment,
    programs: ContractPrograms,
    constants: ConstantsTable,
    data: Data,
    optimizer: Optimizer,
) -> Contract:
    numerics = experiment.numerics
    holdout = data.holdout
    assert holdout is not None
    return Contract(
        version=1,
        steps=experiment.training.steps,
        batch_size=experiment.training.batch_size,
        seed=experiment.training.seed,
        seed_rule=experiment.training.seed_rule,
        programs=Programs(**programs.ids),
        constants=constants.digest,
        rules=hashlib.sha256(rules_bytes(programs.rules)).hexdigest(),
        config=hashlib.sha256(contract_config_bytes(experiment)).hexdigest(),
        data=data,
        init=Init(kind=experiment.init.kind),
        optimizer=NamedOptimizer(kind=optimizer.kind, name=optimizer.name),
        numerics=Numerics.of(numerics.rules, numerics.null_gradients),
        properties=tuple(
            PropertyRule(
                name=rule.name,
                program=programs.ids["evaluate"],
                data_root=holdout.root,
                numerator=rule.numerator,
                denominator=rule.denominator,
                margin=rule.margin,
            )
            for rule in experiment.properties
        ),
        retention=Retention(
            window=experiment.retention.window,
            holders=tuple(sorted(experiment.retention.holders)),
            price=experiment.retention.price,
            deadline=experiment.retention.deadline,
        ),
    )
