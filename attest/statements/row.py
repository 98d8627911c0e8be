"""A step's row: the fields that are a function of (genesis, step) alone.

Nothing in it comes from a clock, the network or the attempt, so an exact replay of the step gives
byte-equal rows. The line of a run is the sequence of row hashes; row 0 is genesis.
"""

from dataclasses import dataclass
from typing import Annotated, cast

from attest import canonical
from attest.envelope import row_hash
from attest.errors import FormatError
from attest.schema import (
    Hex64,
    HexFloat,
    OptionalHex64,
    OptionalMagnitude,
    Ordinal,
    built,
    integer,
)

# A row has a fixed set of short fields; a whole one takes about 620 bytes.
MAX_ROW_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Scalars:
    """Commit what no microbatch can know: gradient norm, whether all is finite, total weight."""

    global_norm: HexFloat
    finite: Annotated[int, integer(0, 1)]
    weight: HexFloat


@dataclass(frozen=True, slots=True)
class Row:
    """Commit one step; `prev` is the row hash before it, for step 1 the run itself."""

    run: Hex64
    step: Ordinal
    prev: Hex64
    gradient_root: Hex64
    state_root: OptionalHex64
    batch_root: Hex64
    scalars: Scalars
    loss: HexFloat
    bound: OptionalMagnitude

    def __post_init__(self) -> None:
        if (self.step == 1) != (self.prev == self.run):
            raise FormatError(
                f"row.prev: step {self.step} must name {'the run' if self.step == 1 else 'a row'}",
                code="field",
            )

    def to_bytes(self) -> bytes:
        """Write the row as canonical JSON.

        Raises:
            FormatError: naming the field that breaks its rule.
        """
        value = ROW.dump(self)
        ROW.load(value, "row")
        return canonical.encode(value)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Row":
        """Read a row; `Row.from_bytes(x).to_bytes() == x` holds.

        Raises:
            FormatError: for other bytes, naming the field.
        """
        return cast(Row, ROW.load(canonical.decode(data, max_bytes=MAX_ROW_BYTES), "row"))

    def hash(self) -> bytes:
        """Return the row hash, which `prev`, `rowsRoot` and `final.line` use; 32 bytes."""
        return row_hash(self.to_bytes())


ROW = built(Row)


def cut_row(payload: bytes) -> bytes:
    """Cut the row's canonical bytes out of the payload of a step that was encoded or decoded.

    The payload is canonical: before the row stand only fixed text and hex digits, after it only the
    predicate type and a digest. Writing the row anew takes 30 times as long, for every step.
    """
    start = payload.index(b'"row":') + len(b'"row":')
    return payload[start : payload.rindex(b'},"predicateType":')]
