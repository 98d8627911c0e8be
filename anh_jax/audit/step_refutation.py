"""Judges the update of one element from a refutation file: check B, on this element alone.

The slots are recomputed by the stored update program from the committed slots, gradient and
scalars; the parameter then from the slots *as committed*, by the arithmetic that the contract's
configuration names (docs/numerics.md, "The update"). No training state, no data, no device of the
trainer's kind is needed, and float32 rounding of any backend is within the tolerance.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np

from anh_jax.audit.one_element import Array, outputs_at
from anh_jax.audit.stranger_program import check_straight, stranger_program
from anh_jax.bounds.statistic import Statistic, largest
from anh_jax.bounds.update_stage import UpdateInputs, UpdateStage
from anh_jax.errors import AnhError, ConfigError, ProgramError
from anh_jax.experiment_optimizers import Adafactor, OptimizerConfig
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import Leaf, ProgramSignature
from anh_jax.program.tree import Path, Tree, from_leaves, path_text
from anh_jax.program.update_check import check_elementwise
from anh_jax.training.constants import ConstantsTable
from attest import canonical
from attest.canonical import JSON, parse_hex_float
from attest.contract import Contract
from attest.digest_tree import Path as StatePath
from attest.digest_tree import path_text as state_path_text
from attest.errors import RefusedError
from attest.opened_element import Element
from attest.statements import Row
from attest.step_refutation import (
    ShownStep,
    StepParts,
    StepRefutation,
    broken_rule,
    verify_step_refutation,
)
from attest.tensor_header import TensorKind


@dataclass(frozen=True)
class JudgedElement:
    """What judging one element gave: refuted unless `found` is accepted; `words` say why."""

    shown: ShownStep
    found: Statistic
    words: str


def judge_step(file: StepRefutation) -> JudgedElement:
    """Check a refutation of an update and take the update of its element.

    Raises RefusedError where a signature, an opening or a stored part does not hold, FormatError
    or ProgramError where a part is none, AnhError where the optimizer mixes elements.
    """
    shown = verify_step_refutation(file)
    words = broken_rule(shown, file.path)
    if words or shown.rule != "update":
        found = Statistic(math.inf if words else 0.0, state_path_text(file.path))
        return JudgedElement(shown, found, words or f"{found.where}: as its rule gives it")
    try:
        if not all(isinstance(key, str) for key in file.path):
            raise RefusedError("refutation: path: is no parameter", check="path")
        return _judge_update(file, cast(Path, file.path), shown)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as e:
        words = f"{state_path_text(file.path)}: its update cannot be taken ({type(e).__name__})"
        raise ProgramError(words) from e


def _judge_update(file: StepRefutation, path: Path, shown: ShownStep) -> JudgedElement:
    update = OneUpdate(file.signed.contract, file.parts)
    found = update.judge(path, shown)
    value = _array(shown.after[path]).ravel()[0]
    words = (
        f"{found.where}: element {file.element} of the committed state is {found.value:.3g} times "
        f"the tolerance from what the committed gradient gives (the parameter is {value:.9g})"
    )
    return JudgedElement(shown, found, words)


class OneUpdate:
    """The update of a contract, taken of one element at a time.

    Raises AnhError where the optimizer is not elementwise, ProgramError where a part is damaged.
    """

    def __init__(self, contract: Contract, parts: StepParts) -> None:
        config = optimizer_of(parts.config)
        if isinstance(config, Adafactor) or contract.optimizer.kind != "elementwise":
            raise AnhError("the optimizer mixes elements: only a recording shows its update")
        stored = stranger_program(parts.signature, parts.artifact)
        check_elementwise(stored)
        self._signature = stored.signature
        self._program = read_stored(stored).program
        check_straight(self._program)
        self._table = ConstantsTable.from_bytes(parts.constants)
        unit = contract.numerics.rules.roundoff.update
        self._stage = UpdateStage(config, unit_roundoff=unit)

    def judge(self, path: Path, shown: ShownStep) -> Statistic:
        """Return check B of a parameter's element and its slots.

        Raises:
            RefusedError: what is opened is not what the program takes and gives of this parameter.
        """
        opened = _Opened(_named(shown.before), _named(shown.gradient), _named(shown.after))
        gradient = ("gradient", *path[1:])
        _check_opened(self._signature, opened, parameter_paths(self._signature, path), gradient)
        before, after = _arrays(opened.before), _arrays(opened.after)
        summed = from_leaves({path[1:]: _array(opened.gradient[gradient])})
        inputs = update_inputs(shown.accused.row, self._table, _tree(before), summed)
        reference = _tree(self._reference(inputs, before, path))
        unfit = self._stage.unfit(inputs, reference)
        if not unfit.accepted:
            # Not a word about the trainer, who took the program that the contract names.
            raise ProgramError(
                f"{unfit.where}: the contract's update program is of another rule than its "
                "optimizer; no step is judged by it"
            )
        residuals = self._stage.residuals(inputs, _tree(after), reference)
        return largest(residual.worst for residual in residuals)

    def _reference(
        self, inputs: UpdateInputs, before: Mapping[Path, Array], path: Path
    ) -> dict[Path, Array]:
        """Return what the stored program makes of the element and its slots."""
        given: dict[Path, Array] = {
            **{("state", *p): x for p, x in before.items()},
            ("gradient", *path[1:]): _array_like(inputs.gradient, path),
            ("scalars", "weight"): np.asarray(np.float32(inputs.weight)),
            ("scalars", "globalNorm"): np.asarray(np.float32(inputs.global_norm)),
            ("scalars", "finite"): np.asarray(np.uint32(inputs.finite)),
            ("constants",): np.array(list(inputs.constants.values()), np.float32),
        }
        leaves = self._signature.inputs
        places = {i: given[leaf.path] for i, leaf in enumerate(leaves) if leaf.path in given}
        paths = list(before)
        wanted = [leaf.path for leaf in self._signature.outputs]
        outputs = outputs_at(self._program, places, [wanted.index(p) for p in paths])
        return dict(zip(paths, outputs, strict=True))


def update_inputs(row: Row, table: ConstantsTable, before: Tree, gradient: Tree) -> UpdateInputs:
    """Return what the update of a row takes: committed trees, the row's scalars, its constants.

    Raises:
        RefusedError: the contract has no such step.
    """
    if not 1 <= row.step <= len(table.values):
        raise RefusedError("refutation: row: is of no step of the contract", check="row")
    constants = table.values[row.step - 1].tolist()
    return UpdateInputs(
        before=before,
        gradient=gradient,
        weight=float(_single(row.scalars.weight)),
        global_norm=float(_single(row.scalars.global_norm)),
        finite=bool(row.scalars.finite),
        constants=dict(zip(table.names, constants, strict=True)),
    )


def parameter_paths(signature: ProgramSignature, path: Path) -> tuple[Path, ...]:
    """Return the state paths of a parameter and its slots, as an update program gives them."""
    rest = path[1:]
    slots = [
        leaf.path
        for leaf in signature.outputs
        if leaf.path[0] == "optimizer" and leaf.path[2:] == rest
    ]
    return (path, *slots)


def optimizer_of(config: bytes) -> OptimizerConfig:
    """Return the optimizer that a contract's configuration names; ConfigError for none."""
    value = canonical.decode(config, max_bytes=len(config))
    named = value.get("optimizer") if isinstance(value, dict) else None
    try:
        return msgspec.convert(_floats(named), OptimizerConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: names no optimizer: {error}") from error


def _floats(value: JSON) -> Any:
    """Return a configuration's value with its hexadecimal floats read."""
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        return parse_hex_float(value)
    return value


@dataclass(frozen=True)
class _Opened:
    before: Mapping[Path, Element]
    gradient: Mapping[Path, Element]
    after: Mapping[Path, Element]


def _named(elements: Mapping[StatePath, Element]) -> dict[Path, Element]:
    """Return the elements by paths as programs have them, of text alone."""
    if not all(isinstance(key, str) for path in elements for key in path):
        raise RefusedError("refutation: openings: a path of numbers", check="openings")
    return {cast(Path, path): element for path, element in elements.items()}


def _check_opened(
    signature: ProgramSignature, shown: _Opened, tensors: tuple[Path, ...], gradient: Path
) -> None:
    outputs = {leaf.path: leaf for leaf in signature.outputs}
    if tensors[0][0] != "parameters" or tensors[0] not in outputs:
        raise RefusedError("refutation: path: is no parameter", check="path")
    if set(shown.before) != set(tensors) or set(shown.gradient) != {gradient}:
        raise RefusedError(
            f"refutation: openings: not those of {path_text(tensors[0])} and its slots",
            check="openings",
        )
    leaf = outputs[tensors[0]]
    for elements in (shown.before, shown.gradient, shown.after):
        for path, element in elements.items():
            if not _fits(outputs.get(path, leaf), element):
                words = f"refutation: openings: {path_text(path)} is of another shape or dtype"
                raise RefusedError(words, check="openings")


def _fits(leaf: Leaf, element: Element) -> bool:
    header = element.header
    form = (header.kind, header.dtype, header.dims)
    return form == (TensorKind.ARRAY, "float32", tuple(leaf.shape)) and leaf.dtype == "float32"


def _arrays(elements: Mapping[Path, Element]) -> dict[Path, Array]:
    return {path: _array(element) for path, element in elements.items()}


def _array(element: Element) -> Array:
    """Return an element as an array of one element, of its tensor's rank."""
    array = np.frombuffer(element.data, element.header.dtype)
    return array.reshape((1,) * len(element.header.dims))


def _array_like(tree: Tree, path: Path) -> Array:
    found: Any = tree
    for key in path[1:]:
        found = found[key]
    return cast(Array, found)


def _tree(leaves: Mapping[Path, Array]) -> Tree:
    empty = () if any(path[0] == "optimizer" for path in leaves) else (("optimizer",),)
    return from_leaves(dict(leaves), empty)


def _single(number: str) -> np.float32:
    """Return a number of a row as a program takes it: infinite where it is too large."""
    with np.errstate(over="ignore"):
        return np.float32(parse_hex_float(number))
