"""The numbers of a step that a row states, as plain values: what a child process hands back."""

from collections.abc import Mapping

from anh_jax.bounds.gradient_check import RowNumbers
from anh_jax.training.executor import Tree


def numbers_of(outputs: Tree, scalars: Tree) -> dict[str, float]:
    """Return loss, weight, norm and finite flag of a step."""
    return {
        "loss": float(outputs["loss"]),
        "weight": float(scalars["weight"]),
        "norm": float(scalars["globalNorm"]),
        "finite": float(scalars["finite"]),
    }


def row_numbers(values: Mapping[str, float]) -> RowNumbers:
    """Return the numbers as the checks take them; nothing is declared."""
    return RowNumbers(
        loss=values["loss"],
        weight=values["weight"],
        global_norm=values["norm"],
        finite=bool(values["finite"]),
        declared=None,
    )
