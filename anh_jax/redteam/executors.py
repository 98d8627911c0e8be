"""Honest executors that round otherwise, and the child process that computes steps as one of them.

    python -m anh_jax.redteam.executors FOLDER VARIANT

reads a contract, its data and states from FOLDER (written by honest.py) and writes there what the
variant makes of each step. The data come with it: a set that an interpreter documents itself with
is another one under another Python.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from anh_jax.data.sources import Source
from anh_jax.errors import ConfigError
from anh_jax.program.interpret import read_refined
from anh_jax.redteam.step_numbers import numbers_of
from anh_jax.run_directory import RunDirectory
from anh_jax.training.executor import Tree
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.training.state import State, gradient_part
from anh_jax.workbench import MeshSizes, Workbench, read_materials

BEFORE, NUMBERS = "before", "numbers.json"
_DATA = "examples"
_DEVICES = "--xla_force_host_platform_device_count=8"


@dataclass(frozen=True)
class Variant:
    """One way to compute a step honestly.

    `flags` go to XLA before it starts, `devices` split the batch and `pieces` cut it, and `compute`
    says how else the gradient is computed.
    """

    name: str
    flags: str = ""
    devices: int = 1
    pieces: int = 1
    compute: str = "stored"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


VARIANTS: tuple[Variant, ...] = (
    Variant("devices-2", flags=_DEVICES, devices=2),
    Variant("devices-4", flags=_DEVICES, devices=4),
    Variant("devices-8", flags=_DEVICES, devices=8),
    Variant("microbatch-2", pieces=2),
    Variant("microbatch-4", pieces=4),
    Variant("permuted", compute="permuted"),
    Variant("op-by-op", compute="interpreted"),
    Variant("fusion-off", flags="--xla_disable_hlo_passes=fusion"),
    Variant("level-0", flags="--xla_backend_optimization_level=0"),
    Variant("sse4.2", flags="--xla_cpu_max_isa=SSE4_2"),
    Variant("other-jax"),
)


def variant_of(name: str) -> Variant:
    """Return a variant by name."""
    found = next((variant for variant in VARIANTS if variant.name == name), None)
    if found is None:
        raise ConfigError(
            f"variant {name!r}: unknown; known are {', '.join(v.name for v in VARIANTS)}"
        )
    return found


def compute_all(folder: Path, variant: Variant) -> None:
    """Compute every state's step as the variant does and write what it commits."""
    run = RunDirectory.open(folder)
    materials = read_materials(run, source=read_data(folder))
    sizes = MeshSizes(data=variant.devices)
    batch = materials.contract.batch_size
    microbatch = None if variant.pieces == 1 else batch // variant.pieces
    bench = Workbench(materials, sizes, microbatch=microbatch)
    before, out = RetainedSteps(folder / BEFORE), RetainedSteps(folder / variant.name)
    gradient = _gradients(bench)[variant.compute]
    numbers: dict[str, dict[str, float]] = {}
    for number in before.steps():
        state = before.state(number, bench.abstract_state())
        step = int(state["step"]) + 1
        outputs = gradient(state, step)
        scalars = bench.executor.scalars(outputs)
        numbers[str(number)] = numbers_of(outputs, scalars)
        kept = {name: outputs[name] for name in ("gradient", "statistics")}
        kept = jax.tree.map(np.asarray, kept)  # before the update may take buffers
        out.save(number, kept, bench.executor.update(state, outputs, scalars, step))
    (folder / variant.name / NUMBERS).write_text(json.dumps(numbers))


def write_data(folder: Path, source: Source) -> None:
    """Keep the examples for child processes."""
    (folder / _DATA).mkdir()
    for name, arrays in _sets(source).items():
        kept = {field: np.ascontiguousarray(array) for field, array in arrays.items()}
        safetensors.numpy.save_file(kept, folder / _DATA / name)


def read_data(folder: Path) -> Source:
    """Return the examples that `write_data` kept; the manifests say whether they are the same."""
    train, holdout = (
        safetensors.numpy.load_file(folder / _DATA / name) for name in ("train", "holdout")
    )
    return Source(train, holdout, "kept for child processes")


def _sets(source: Source) -> dict[str, Mapping[str, np.ndarray]]:
    return {"train": source.train, "holdout": source.holdout}


def _gradients(bench: Workbench) -> dict[str, Callable[[State, int], Tree]]:
    def stored(state: State, step: int) -> Tree:
        return bench.executor.gradient(state, bench.batch(step).pieces)

    def permuted(state: State, step: int) -> Tree:
        (piece,) = bench.batch(step).pieces
        order = np.random.default_rng(step).permutation(len(piece["id"]))
        return bench.executor.gradient(state, ({n: x[order] for n, x in piece.items()},))

    def interpreted(state: State, step: int) -> Tree:
        (piece,) = bench.batch(step).pieces
        size = bench.materials.contract.batch_size
        program = read_refined(bench.materials.programs.stored["gradient"], batch=size)
        return program(gradient_part(state), piece, state["key"], loops="python")

    return {"stored": stored, "permuted": permuted, "interpreted": interpreted}


def child_environment(variant: Variant) -> dict[str, str]:
    """Return the environment of the child process; flags change the key of the compile cache."""
    own: dict[str, str] = {**os.environ, **variant.environment}
    own["JAX_PLATFORMS"] = "cpu"
    own["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {variant.flags}".strip()
    return own


def main(arguments: list[Any]) -> None:
    """Compute in this process."""
    folder, name = arguments
    compute_all(Path(folder), variant_of(name))


if __name__ == "__main__":
    main(sys.argv[1:])
