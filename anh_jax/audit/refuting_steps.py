"""Makes the files that refute an update or a start, from committed trees: what to open, and where.

The element opened is the one that is furthest outside; every other one that is outside would do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from anh_jax.audit.init_refutation import init_bits
from anh_jax.audit.refutation import signed_step
from anh_jax.audit.step_refutation import parameter_paths, update_inputs
from anh_jax.bounds.statistic import Array, differing_bits, same_bits
from anh_jax.bounds.update_stage import UpdateStage
from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.digest.opening import open_tile
from anh_jax.experiment import contract_config_bytes
from anh_jax.experiment_optimizers import Adafactor
from anh_jax.line import SignedRow
from anh_jax.program.state_rules import rules_bytes
from anh_jax.program.tree import Path, leaves_of, path_text
from anh_jax.run_directory import RunDirectory
from anh_jax.training.executor import Tree
from anh_jax.training.state import State
from anh_jax.workbench import Materials
from attest.contract import Contract
from attest.init_refutation import InitRefutation
from attest.opened_element import tile_of
from attest.signed_step import SignedGenesis
from attest.statements import Row
from attest.step_refutation import Openings, StepParts, StepRefutation
from attest.tensor_header import TensorHeader


@dataclass(frozen=True)
class OpenedStep:
    """A step's committed trees, each under its root, and its row with the one before.

    `outputs` hold `gradient` and `statistics`; `reference` is what the stored update program makes
    of the state before and them, by the row's scalars.
    """

    signed: SignedRow
    previous: Row | None
    before: State
    outputs: Tree
    after: State
    reference: Tree


@dataclass(frozen=True)
class Spot:
    """One element of the state, by its number in C order."""

    path: Path
    element: int


def refute_step(
    run: RunDirectory, materials: Materials, opened: OpenedStep, *, alg: str
) -> StepRefutation | None:
    """Return the file that refutes an update; None where no element of it is outside.

    Raises AnhError where the row's envelope is not in the run directory.
    """
    spot = worst_spot(materials, opened)
    return None if spot is None else step_file_of(run, materials, opened, spot, alg=alg)


def worst_spot(materials: Materials, opened: OpenedStep) -> Spot | None:
    """Return the element that is furthest from what its rule gives, None where all are within."""
    spot = next(_changed(materials, opened), None)
    if spot is not None:
        return spot
    config, rules = materials.experiment.optimizer, materials.contract.numerics.rules
    if isinstance(config, Adafactor):
        return None
    stage = UpdateStage(config, unit_roundoff=rules.roundoff.update)
    inputs = update_inputs(
        opened.signed.row, materials.constants, opened.before, opened.outputs["gradient"]
    )
    names = {
        f"{part}/{path_text(path)}": (part, *path)
        for part in ("parameters", "optimizer")
        for path in leaves_of(opened.before[part])
    }
    found, worst = None, 1.0
    for residual in stage.residuals(inputs, opened.after, opened.reference):
        share = np.abs(residual.share).ravel()
        if share.size and not float(share.max()) <= worst:
            worst = float(share.max())
            found = Spot(names[residual.name.split(": ")[0]], int(share.argmax()))
    return found


def step_file_of(
    run: RunDirectory, materials: Materials, opened: OpenedStep, spot: Spot, *, alg: str
) -> StepRefutation:
    """Return the file that opens a step around one element of its parameters."""
    signature, step = materials.programs.stored["update"].signature, opened.signed.row.step
    paths: tuple[Path, ...] = (spot.path,)
    if materials.programs.rules[path_text(spot.path)] == "update":
        skipped = 2 if spot.path[0] == "optimizer" else 1
        paths = parameter_paths(signature, ("parameters", *spot.path[skipped:]))
    before = tree_digest(opened.before, step=step - 1, alg=alg)
    after = tree_digest(opened.after, step=step, alg=alg)
    committed = {name: opened.outputs[name] for name in ("gradient", "statistics")}
    gradient = gradient_digest(committed, step=step, alg=alg)
    sums = (("gradient", *paths[0][1:]),) if paths[0][0] == "parameters" else ()
    return StepRefutation(
        signed=signed_step(run, opened.signed),
        before=opened.previous,
        parts=step_parts(materials),
        path=paths[0],
        element=spot.element,
        openings=Openings(
            before=_tiles(opened.before, before, paths, spot.element),
            gradient=_tiles(committed, gradient, sums, spot.element),
            after=_tiles(opened.after, after, paths, spot.element),
        ),
    )


def step_parts(materials: Materials) -> StepParts:
    """Return the stored parts of a contract that an update follows from."""
    stored = materials.programs.stored["update"]
    return StepParts(
        signature=stored.signature.to_bytes(),
        artifact=stored.artifact,
        constants=materials.constants.to_bytes(),
        rules=rules_bytes(materials.programs.rules),
        config=contract_config_bytes(materials.experiment),
    )


def refute_start(
    run: RunDirectory, materials: Materials, first: State, *, alg: str
) -> InitRefutation | None:
    """Return the file that refutes a run's start; None where `first` is what init gives.

    `first` is the state that genesis commits.
    """
    stored = materials.programs.stored["init"]
    drawn = init_bits(stored, materials.contract.seed)
    spot = _first_change(drawn, {path: _words(x) for path, x in leaves_of(first).items()})
    if spot is None:
        return None
    digest = tree_digest(first, step=0, alg=alg)
    (opening,) = _tiles(first, digest, (spot.path,), spot.element)
    contract = Contract.from_bytes(run.contract_bytes())
    return InitRefutation(
        signed=SignedGenesis(contract, run.statement("genesis")),
        signature=stored.signature.to_bytes(),
        artifact=stored.artifact,
        element=spot.element,
        opening=opening,
    )


def _changed(materials: Materials, opened: OpenedStep) -> Iterator[Spot]:
    """Yield elements of copied paths and counters that are not what their rule gives."""
    before, after = leaves_of(opened.before), leaves_of(opened.after)
    for path, leaf in before.items():
        rule, old = materials.programs.rules[path_text(path)], _words(leaf)
        if rule not in ("copied", "counter"):
            continue
        wanted = old + old.dtype.type(1) if rule == "counter" else old
        spot = _first_change({path: wanted}, {path: _words(after[path])})
        if spot is not None:
            yield spot


def _first_change(wanted: Mapping[Path, Array], found: Mapping[Path, Array]) -> Spot | None:
    for path, theirs in found.items():
        ours = wanted.get(path)
        if ours is None or (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return Spot(path, 0)
        if not same_bits(ours, theirs):
            return Spot(path, int(differing_bits(ours, theirs).ravel().argmax()))
    return None


def _tiles(
    tree: Any, digest: TreeDigest, paths: tuple[Path, ...], element: int
) -> tuple[bytes, ...]:
    headers = {x.path: TensorHeader.from_bytes(x.header) for x in digest.tensors}
    return tuple(
        open_tile(tree, digest, path=path, index=tile_of(element, headers[path])) for path in paths
    )


def _words(leaf: Any) -> Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)
