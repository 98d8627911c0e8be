"""An opened tile of a run: the opening, and what leads from its state digest to the final record.

    {"format": "anh opened tile v1", "line": [hex, ...], "opening": {...}, "row": {...} or null,
     "run": hex}

State 0 is committed by genesis: no row, no path. Every other state is committed by its row, and
the row by `final.line`: RFC 6962 inclusion of row number `step` among the T + 1 rows. So a reader
who has verified the run's proof needs nothing else, whatever the step.
"""

from dataclasses import dataclass
from typing import cast

from attest import canonical
from attest.canonical import JSON
from attest.errors import FormatError, RefusedError
from attest.merkle import leaf_hash, root_from_inclusion
from attest.opening import MAX_BYTES, Opening, verify_opening
from attest.statements import Final, Genesis
from attest.statements.row import ROW, Row

FORMAT = "anh opened tile v1"
_FIELDS = frozenset(("format", "line", "opening", "row", "run"))
# The row and up to 53 path hashes beside the opening.
_MAX_BYTES = MAX_BYTES + 16_384


@dataclass(frozen=True, slots=True)
class OpenedTile:
    """Hold an opening with its place in a run; `row` is None for state 0 alone."""

    run: str
    opening: Opening
    row: Row | None
    line: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Write the file as canonical JSON."""
        opening = self.opening.to_bytes()
        return canonical.encode(
            {
                "format": FORMAT,
                "line": [node.hex() for node in self.line],
                "opening": canonical.decode(opening, max_bytes=len(opening)),
                "row": None if self.row is None else ROW.dump(self.row),
                "run": self.run,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "OpenedTile":
        """Read the file without judging it; FormatError for any other bytes."""
        value = canonical.decode(data, max_bytes=_MAX_BYTES)
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
            raise FormatError(f"opened tile: not an object of the format {FORMAT!r}", code="fields")
        row = value["row"]
        return cls(
            run=_digest(value["run"], "run").hex(),
            opening=Opening.from_bytes(canonical.encode(value["opening"])),
            row=None if row is None else cast("Row", ROW.load(row, "opened tile: row")),
            line=_digests(value["line"]),
        )

    def verify(self, *, run: str, genesis: Genesis, final: Final) -> None:
        """Check that the tile is in the run's state, given its verified genesis and final record.

        `run` is the record hash of genesis in hex. Raises RefusedError naming the check.
        """
        if self.run != run:
            raise RefusedError("opened tile: of another run than the proof", check="run")
        root = self._state_root(genesis, final)
        verify_opening(self.opening.to_bytes(), root=bytes.fromhex(root), alg=genesis.alg)

    def _state_root(self, genesis: Genesis, final: Final) -> str:
        row, step = self.row, self.opening.step
        if row is None:
            if step != 0 or self.line:
                raise RefusedError(f"opened tile: step {step} comes without its row", check="row")
            return genesis.state_root
        if row.run != self.run or row.step != step or row.state_root is None:
            raise RefusedError("opened tile: the row commits another state", check="row")
        root = root_from_inclusion(step, final.line.count, leaf_hash(row.hash()), self.line)
        if root.hex() != final.line.root:
            raise RefusedError("opened tile: the row is not on the run's line", check="line")
        return row.state_root


def _digests(value: JSON) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise FormatError("opened tile: line is not a path of at most 64 hashes", code="fields")
    return tuple(_digest(item, "line") for item in value)


def _digest(value: JSON, name: str) -> bytes:
    try:
        data = bytes.fromhex(cast(str, value))
    except (TypeError, ValueError):
        raise FormatError(f"opened tile: {name} is not hexadecimal", code="fields") from None
    if len(data) != 32 or data.hex() != value:
        raise FormatError(f"opened tile: {name} is not 64 lower-case hex digits", code="fields")
    return data
