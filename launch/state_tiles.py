"""One tensor on its way from a server: what lies on the disk is right, or is not there.

The file holds the tensor as its array, in C order; another says which tiles are there. What a
stopped download left is hashed again before it counts, so a torn write costs a tile, no more.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anh_jax.digest.hashes import BulkHashes
from anh_jax.digest.served import split_digests, tile_block, tile_of
from attest.digest_tree import tile_dims
from attest.tensor_header import TensorHeader


class TensorFile:
    """The tiles of one tensor below `stem`; `digests` are the right ones, joined.

    The dtype is that of the array, of keys their words.
    """

    def __init__(
        self,
        stem: Path,
        header: TensorHeader,
        dtype: np.dtype,
        digests: bytes,
        hashes: BulkHashes,
    ) -> None:
        self._header = header
        self._digests = split_digests(digests)
        self._hashes = hashes
        self._extents = tile_dims(header.dims, header.grid)
        self._marks = stem.with_suffix(".tiles")
        path = stem.with_suffix(".data")
        size = max(1, len(self._digests) * header.tile_bytes)
        here = path.is_file() and path.stat().st_size == size and self._marks.is_file()
        if not here:
            with path.open("wb") as stream:
                stream.truncate(size)
        flat = np.memmap(path, np.uint8, "r+", shape=(size,))
        data = flat[: len(self._digests) * header.tile_bytes]
        self.array: NDArray = data.view(dtype).reshape(header.dims)
        self._flat = flat
        self._there = self._known() if here else bytearray(len(self._digests))

    def missing(self) -> list[int]:
        """Return the tiles that are not there, ascending."""
        return [tile for tile, there in enumerate(self._there) if not there]

    def put(self, tile: int, data: bytes) -> bool:
        """Keep a tile if its digest is the right one; say whether it was."""
        if len(data) != self._header.tile_bytes or self.digest(data) != self._digests[tile]:
            return False
        block = np.frombuffer(data, self.array.dtype).reshape(self._extents)
        self.array[(*tile_block(self._header, tile), ...)] = block
        self._there[tile] = 1
        return True

    def digest(self, data: bytes) -> bytes:
        """Return the digest that a tile of these bytes would have."""
        return self._hashes.tiles([data])[0]

    def save(self) -> None:
        """Let a later download go on from here."""
        self._flat.flush()
        self._marks.write_bytes(bytes(self._there))

    def _known(self) -> bytearray:
        """Return the tiles that an earlier download left here and that are right."""
        marks = self._marks.read_bytes()
        if len(marks) != len(self._digests):
            return bytearray(len(self._digests))
        return bytearray(
            bool(mark)
            and self.digest(tile_of(self.array, self._header, tile)) == self._digests[tile]
            for tile, mark in enumerate(marks)
        )
