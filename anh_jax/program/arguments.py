"""Between a caller's trees and the flat leaves of a program's `main`, checked by its signature."""

from collections.abc import Sequence
from typing import Any

import jax

from anh_jax.errors import ProgramError
from anh_jax.program.signature import BATCH, ProgramSignature
from anh_jax.program.tensors import dtype_of, shape_text
from anh_jax.program.tree import Path, Tree, empty_nodes, from_leaves, leaves_of, path_text


class ProgramTrees:
    """Flattens a program's arguments and rebuilds its result.

    Attributes:
        signature: what the program takes and gives.
    """

    def __init__(self, signature: ProgramSignature) -> None:
        self.signature = signature
        places = {leaf.path: place for place, leaf in enumerate(signature.outputs)}
        self._order, self._result = jax.tree.flatten(from_leaves(places, signature.empty_outputs))
        trees = tuple(signature.inputs_of(name) for name in signature.arguments)
        self._structure = jax.tree.structure(trees)
        self._dtypes = tuple(dtype_of(leaf.dtype) for leaf in signature.inputs)
        self._accepted: list[Any] = []

    def flatten(self, *arguments: Tree) -> list[Any]:
        """Return the arguments' leaves in the order of `main`, checked against the signature.

        Raises:
            ProgramError: names the leaf that is missing, unknown, or of another shape or dtype.
        """
        try:
            leaves, structure = jax.tree.flatten(arguments)
            fits = structure == self._structure
        except ValueError:  # keys of several types have no order
            leaves, fits = [], False
        if not fits:
            # Other mappings than dict are welcome; whatever else differs is named here.
            leaves = _named_leaves(self.signature, arguments)
        self._check(leaves)
        return leaves

    def result(self, leaves: Sequence[Any]) -> Tree:
        """Return the tree of a program's outputs, given in the order of `main`."""
        return jax.tree.unflatten(self._result, [leaves[place] for place in self._order])

    def _check(self, leaves: Sequence[Any]) -> None:
        # Every step brings the shapes and dtypes of the step before, which were checked.
        try:
            given = [(value.shape, value.dtype) for value in leaves]
        except AttributeError:  # no array; the check says which
            given = []
        if given != self._accepted or not given:
            _check_values(self.signature, self._dtypes, leaves)
            self._accepted = given


def _named_leaves(signature: ProgramSignature, arguments: Sequence[Tree]) -> list[Any]:
    if len(arguments) != len(signature.arguments):
        names = ", ".join(signature.arguments)
        raise ProgramError(
            f"program {signature.name}: {len(arguments)} arguments, expected ({names})"
        )
    found: dict[Path, Any] = {}
    empty: list[Path] = []
    for name, tree in zip(signature.arguments, arguments, strict=True):
        found.update(leaves_of(tree, (name,)))
        empty.extend(empty_nodes(tree, (name,)))
    given = {*found, *empty}
    wanted = {*(leaf.path for leaf in signature.inputs), *signature.empty_inputs}
    if missing := sorted(wanted - given):
        raise ProgramError(
            f"program {signature.name}: no {path_text(missing[0])} among the arguments"
        )
    if unknown := sorted(given - wanted):
        raise ProgramError(
            f"program {signature.name}: unknown {path_text(unknown[0])} among the arguments"
        )
    return list(found.values())


def _check_values(
    signature: ProgramSignature, dtypes: Sequence[Any], values: Sequence[Any]
) -> None:
    batch: Any = BATCH
    for leaf, dtype, value in zip(signature.inputs, dtypes, values, strict=True):
        shape = getattr(value, "shape", None)
        if shape is None or not hasattr(value, "dtype"):
            raise ProgramError(
                f"program {signature.name}: {leaf.text} is a {type(value).__name__},"
                " expected an array"
            )
        if batch == BATCH and BATCH in leaf.shape and len(shape) == len(leaf.shape):
            batch = shape[leaf.shape.index(BATCH)]
        if shape == leaf.shape and value.dtype == dtype:
            continue
        expected = tuple(batch if size == BATCH else size for size in leaf.shape)
        if tuple(shape) != expected or value.dtype != dtype:
            raise ProgramError(
                f"program {signature.name}: {leaf.text} is {shape_text(shape, str(value.dtype))},"
                f" expected {shape_text(expected, leaf.dtype)}"
            )
