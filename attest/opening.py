"""Open one tile of a committed state: canonical JSON that leads from its bytes to the root.

    {"alg", "format": "anh opening v1", "header": hex, "index": [tile coordinate per axis],
     "setIndex", "setSiblings": [hex, from the tensor up], "siblings": [hex, from the tile up],
     "step", "structure": hex, "tensors", "tile": base64}

An opening shows that the tile is in the state. It does not show that the state holds no second
tensor under the same path: that takes the whole state.
"""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import cast

from attest import canonical
from attest.digest_tree import (
    LARGEST_BYTE,
    DigestLevel,
    climb,
    level_hash,
    set_turns,
    state_bytes,
    tensor_bytes,
    tile_turns,
)
from attest.errors import FormatError, InputError, RefusedError
from attest.tensor_header import TensorHeader

FORMAT = "anh opening v1"
# Room for a tile of 12 MiB in base64: an odd vocabulary's embedding is a single, large tile.
MAX_BYTES = 16 * 1024 * 1024
_FIELDS = frozenset(
    (
        "alg",
        "format",
        "header",
        "index",
        "setIndex",
        "setSiblings",
        "siblings",
        "step",
        "structure",
        "tensors",
        "tile",
    )
)
_MAX_TENSORS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Opening:
    """Hold one tile and all that joins it to a state digest.

    `index` counts tiles along each axis; `siblings` and `set_siblings` go from the leaf up, 32
    bytes each; `tensors` is the number of tensors in the state, `set_index` this one's place.
    """

    alg: str
    header: TensorHeader
    index: tuple[int, ...]
    tile: bytes
    siblings: tuple[bytes, ...]
    set_index: int
    set_siblings: tuple[bytes, ...]
    tensors: int
    structure: bytes
    step: int

    def to_bytes(self) -> bytes:
        """Write the opening as canonical JSON."""
        return canonical.encode(
            {
                "alg": self.alg,
                "format": FORMAT,
                "header": self.header.to_bytes().hex(),
                "index": self.index,
                "setIndex": self.set_index,
                "setSiblings": [sibling.hex() for sibling in self.set_siblings],
                "siblings": [sibling.hex() for sibling in self.siblings],
                "step": self.step,
                "structure": self.structure.hex(),
                "tensors": self.tensors,
                "tile": base64.b64encode(self.tile).decode("ascii"),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, max_bytes: int = MAX_BYTES) -> "Opening":
        """Read an opening without judging it; FormatError for any other bytes."""
        fields = canonical.decode(data, max_bytes=max_bytes)
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or fields["format"] != FORMAT:
            raise FormatError(f"opening: not an object of the format {FORMAT!r}", code="opening")
        alg = fields["alg"]
        if not isinstance(alg, str):
            raise FormatError("opening: alg is not text", code="opening")
        return cls(
            alg=alg,
            header=TensorHeader.from_bytes(_hex(fields["header"], "header")),
            index=tuple(_count(item, "index") for item in _list(fields["index"], "index")),
            tile=_base64(fields["tile"]),
            siblings=_digests(fields["siblings"], "siblings"),
            set_index=_count(fields["setIndex"], "setIndex"),
            set_siblings=_digests(fields["setSiblings"], "setSiblings"),
            tensors=_count(fields["tensors"], "tensors"),
            structure=_digest(fields["structure"], "structure"),
            step=_count(fields["step"], "step"),
        )


def verify_opening(
    data: bytes, *, root: bytes, alg: str = "blake3", max_bytes: int = MAX_BYTES
) -> Opening:
    """Verify that an opening leads to the 32-byte state digest `root`, and return it.

    `root` and `alg` come from a statement the caller trusts (a step's state root, the genesis),
    never from the opening. Hashing is pure Python: about 1 MB of tile a second.

    Raises:
        FormatError: if the bytes are not an opening, or its header's grid breaks the tile rule.
        RefusedError: if any check fails; `check` names it.
        InputError: if `alg` is unknown or `root` is not 32 bytes.
    """
    hash_level = level_hash(alg)
    if len(root) != 32:
        raise InputError(f"a state digest has 32 bytes, not {len(root)}")
    opening = Opening.from_bytes(data, max_bytes=max_bytes)
    if opening.alg != alg:
        raise RefusedError(f"opening: uses {opening.alg}, the run uses {alg}", check="alg")
    _check_tile(opening)
    _check_place(opening)
    header = opening.header
    tile = hash_level(DigestLevel.TILE, opening.tile)
    turns = tile_turns(header.grid, opening.index)
    tiles = climb(hash_level, DigestLevel.NODE, tile, turns, opening.siblings)
    tensor = hash_level(DigestLevel.TENSOR, tensor_bytes(header.to_bytes(), tiles))
    set_turn = set_turns(opening.set_index, opening.tensors)
    tensors = climb(hash_level, DigestLevel.SET, tensor, set_turn, opening.set_siblings)
    material = state_bytes(opening.step, opening.tensors, opening.structure, tensors)
    if hash_level(DigestLevel.STATE, material) != root:
        raise RefusedError("opening: does not lead to the state digest", check="root")
    return opening


def _check_tile(opening: Opening) -> None:
    header = opening.header
    if len(opening.index) != len(header.grid) or any(
        place >= count for place, count in zip(opening.index, header.grid, strict=True)
    ):
        raise RefusedError("opening: tile index lies outside the grid", check="index")
    levels = math.prod(header.grid).bit_length() - 1
    if len(opening.siblings) != levels:
        raise RefusedError(
            f"opening: {len(opening.siblings)} tile siblings, the grid needs {levels}",
            check="siblings",
        )
    if len(opening.tile) != header.tile_bytes:
        raise RefusedError(
            f"opening: tile of {len(opening.tile)} bytes, the shape needs {header.tile_bytes}",
            check="tile length",
        )
    if max(opening.tile, default=0) > LARGEST_BYTE.get(header.dtype, 255):
        raise RefusedError(f"opening: a byte that no {header.dtype} has", check="element")


def _check_place(opening: Opening) -> None:
    if not opening.set_index < opening.tensors <= _MAX_TENSORS:
        raise RefusedError("opening: tensor index lies outside the set", check="set index")
    levels = len(set_turns(opening.set_index, opening.tensors))
    if len(opening.set_siblings) != levels:
        raise RefusedError(
            f"opening: {len(opening.set_siblings)} set siblings, the set needs {levels}",
            check="set siblings",
        )


def _list(value: canonical.JSON, name: str) -> list[canonical.JSON]:
    if not isinstance(value, list):
        raise FormatError(f"opening: {name} is not a list", code="opening")
    return value


def _count(value: canonical.JSON, name: str) -> int:
    if type(value) is not int or value < 0:
        raise FormatError(f"opening: {name} is not a count", code="opening")
    return value


def _hex(value: canonical.JSON, name: str) -> bytes:
    try:
        data = bytes.fromhex(cast(str, value))
    except (ValueError, TypeError):
        raise FormatError(f"opening: {name} is not hexadecimal", code="opening") from None
    if data.hex() != value:
        raise FormatError(f"opening: {name} is not lower-case hexadecimal", code="opening")
    return data


def _digest(value: canonical.JSON, name: str) -> bytes:
    data = _hex(value, name)
    if len(data) != 32:
        raise FormatError(f"opening: {name} is not 32 bytes", code="opening")
    return data


def _digests(value: canonical.JSON, name: str) -> tuple[bytes, ...]:
    return tuple(_digest(item, name) for item in _list(value, name))


def _base64(value: canonical.JSON) -> bytes:
    try:
        data = base64.b64decode(cast(str, value), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormatError("opening: tile is not base64", code="opening") from None
    if base64.b64encode(data).decode("ascii") != value:
        raise FormatError("opening: tile is not canonical base64", code="opening")
    return data
