"""What a row states of a step's arithmetic, computed anew: roots, loss and scalars."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anh_jax.training.observers.attestation import host_number
from attest.canonical import hex_float
from attest.statements import Row, Scalars


@dataclass(frozen=True)
class RowNumbers:
    """The numbers of a step as computed here; roots are hex, floats C99 hexadecimal text."""

    gradient_root: str
    loss: str
    scalars: Scalars
    state_root: str

    def differences(self, row: Row) -> tuple[str, ...]:
        """Return the names of the row's numbers that came out otherwise, causes first."""
        return tuple(name for name, ours, theirs in self.pairs(row) if ours != theirs)

    def pairs(self, row: Row) -> tuple[tuple[str, str | int, str | int], ...]:
        """Return each number's name, as computed here and as the row states it, causes first."""
        return (
            ("gradient root", self.gradient_root, row.gradient_root),
            ("loss", self.loss, row.loss),
            ("weight", self.scalars.weight, row.scalars.weight),
            ("gradient norm", self.scalars.global_norm, row.scalars.global_norm),
            ("finite flag", self.scalars.finite, row.scalars.finite),
            ("state root", self.state_root, row.state_root or self.state_root),
        )


def row_numbers(
    outputs: Mapping[str, Any], scalars: Mapping[str, Any], *, gradient_root: str, state_root: str
) -> RowNumbers:
    """Return the numbers of a step from what its programs gave."""
    return RowNumbers(
        gradient_root=gradient_root,
        loss=hex_float(host_number(outputs["loss"])),
        scalars=Scalars(
            global_norm=hex_float(host_number(scalars["globalNorm"])),
            finite=int(host_number(scalars["finite"])),
            weight=hex_float(host_number(scalars["weight"])),
        ),
        state_root=state_root,
    )
