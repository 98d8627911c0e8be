"""Describe one tensor of a state digest: what it is called, its elements and its tile grid.

Layout in `attest.digest_tree`. A header is parsed strictly: what it describes has one spelling.
"""

import math
import struct
from dataclasses import dataclass
from enum import IntEnum

from attest.digest_tree import (
    ELEMENT_BYTES,
    MAX_DEPTH,
    MAX_RANK,
    Path,
    encode_path,
    path_text,
    tile_dims,
    tile_grid,
)
from attest.errors import FormatError, InputError

_VERSION = 1
_KEY_DTYPE = "uint32"


class TensorKind(IntEnum):
    """Say whether a tensor is an array or the words of typed PRNG keys."""

    ARRAY = 0
    KEY = 1


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Name a tensor's path, kind, dtype, shape and tile grid.

    `dims` and `grid` have one entry per axis; of a PRNG key they are those of its uint32 words, and
    `implementation` is the generator's name (empty for an array).
    """

    path: Path
    kind: TensorKind
    dtype: str
    implementation: str
    dims: tuple[int, ...]
    grid: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Return the bytes of one element."""
        return ELEMENT_BYTES[self.dtype]

    @property
    def tile_bytes(self) -> int:
        """Return the bytes of one tile."""
        return math.prod(tile_dims(self.dims, self.grid)) * self.itemsize

    def to_bytes(self) -> bytes:
        """Write the header; InputError if its path cannot be encoded."""
        rank = len(self.dims)
        implementation = _text(self.implementation) if self.kind is TensorKind.KEY else b""
        return b"".join(
            (
                bytes((_VERSION, self.kind)),
                encode_path(self.path),
                _text(self.dtype),
                implementation,
                struct.pack(f"<B{rank}Q{rank}Q", rank, *self.dims, *self.grid),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "TensorHeader":
        """Read a header.

        Raises:
            FormatError: for anything that `to_bytes` does not write, and for a grid that is not
                the one the tile rule gives for this shape and dtype (code "grid").
        """
        try:
            return _parse(_Reader(data))
        except struct.error:
            raise FormatError("tensor header ends too early", code="header") from None


def tensor_header(
    path: Path,
    dtype: str,
    dims: tuple[int, ...],
    *,
    kind: TensorKind = TensorKind.ARRAY,
    implementation: str = "",
) -> TensorHeader:
    """Describe a tensor with the grid the tile rule gives it.

    Raises:
        InputError: for a dtype without a byte layout, too many axes, an implementation name that
            is not 1 to 255 ASCII characters.
    """
    if dtype not in ELEMENT_BYTES:
        raise InputError(f"{path_text(path)}: dtype {dtype} has no byte layout in a state digest")
    if len(dims) > MAX_RANK:
        raise InputError(f"{path_text(path)}: {len(dims)} axes, more than {MAX_RANK}")
    if kind is TensorKind.KEY and not _is_name(implementation):
        raise InputError(f"{path_text(path)}: PRNG implementation {implementation!r} has no name")
    grid = tile_grid(dims, ELEMENT_BYTES[dtype])
    return TensorHeader(path, kind, dtype, implementation, dims, grid)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable()


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")


class _Reader:
    """Take fields off the front of a header."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def take(self, length: int) -> bytes:
        data = self._data[self._at : self._at + length]
        if len(data) != length:
            raise FormatError("tensor header ends too early", code="header")
        self._at += length
        return data

    def name(self) -> str:
        (length,) = self.unpack("<B")
        text = self.take(length).decode("latin-1")
        if not _is_name(text):
            raise FormatError(f"tensor header: name {text!r} is not ASCII", code="header")
        return text

    def key(self) -> str | int:
        kind, length = self.unpack("<BI")
        data = self.take(length)
        if kind == 1 and length == 8:
            return int.from_bytes(data, "little")
        if kind != 0:
            raise FormatError("tensor header: path key of an unknown kind", code="header")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise FormatError("tensor header: path key is not UTF-8", code="header") from None

    def finish(self) -> None:
        if self._at != len(self._data):
            raise FormatError("tensor header: bytes after its end", code="header")


def _parse(reader: _Reader) -> TensorHeader:
    version, kind, depth = reader.unpack("<BBH")
    if version != _VERSION or kind > TensorKind.KEY or depth > MAX_DEPTH:
        raise FormatError("tensor header: unknown version, kind or depth", code="header")
    path = tuple(reader.key() for _ in range(depth))
    dtype = reader.name()
    if dtype not in ELEMENT_BYTES or (kind == TensorKind.KEY and dtype != _KEY_DTYPE):
        raise FormatError(f"tensor header: dtype {dtype!r} is not allowed here", code="header")
    implementation = reader.name() if kind == TensorKind.KEY else ""
    (rank,) = reader.unpack("<B")
    if rank > MAX_RANK:
        raise FormatError(f"tensor header: more than {MAX_RANK} axes", code="header")
    dims, grid = reader.unpack(f"<{rank}Q"), reader.unpack(f"<{rank}Q")
    reader.finish()
    if grid != tile_grid(dims, ELEMENT_BYTES[dtype]):
        raise FormatError("tensor header: grid is not the tile rule's", code="grid")
    return TensorHeader(path, TensorKind(kind), dtype, implementation, dims, grid)
