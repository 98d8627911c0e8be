"""C2SP tlog-tiles (v0.1.0): a log as static files, written once and read by anyone.

Level 0 tiles hold 256 leaf hashes; a tile of level l + 1 holds the roots of 256 full tiles of
level l. Entry bundles hold the 256 leaves of a level 0 tile. The last of each may be partial. A
tile says nothing until its hashes lead to a signed root: `TileTree` leaves that to its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from attest.errors import FormatError, InputError
from attest.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    LeafRange,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    subtree_consistency_ranges,
    tree_root,
)

TILE_WIDTH = 256
TILE_HEIGHT = 8
MAX_ENTRY_BYTES = 65_535
CHECKPOINT_PATH = "checkpoint"
MAX_BUNDLE_BYTES = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
_LENGTH_BYTES = 2
_TILES_KEPT = 4096

# Returns the file at a path such as tile/0/x001/234; raises InputError where there is none.
ReadFile = Callable[[str], bytes]


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a hash tile, such as tile/0/x001/x234/067.p/8."""
    return f"tile/{level}/{_index_path(index)}{_partial(width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of an entry bundle, such as tile/entries/000.p/8."""
    return f"tile/entries/{_index_path(index)}{_partial(width)}"


def encode_bundle(leaves: list[bytes]) -> bytes:
    """Write leaves, each after its length in 16 bits, big endian."""
    for leaf in leaves:
        if len(leaf) > MAX_ENTRY_BYTES:
            raise FormatError(f"log entry is larger than {MAX_ENTRY_BYTES} bytes", code="too large")
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves)


def decode_bundle(data: bytes) -> list[bytes]:
    """Read the leaves of an entry bundle.

    Raises:
        FormatError: if the lengths do not add up, or there are more than 256.
    """
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data) or len(leaves) == TILE_WIDTH:
            raise FormatError("entry bundle is cut or too long", code="bundle")
        leaves.append(data[start:at])
    return leaves


@dataclass(frozen=True, slots=True)
class TileFile:
    """Hold one file of the log: a hash tile or an entry bundle."""

    path: str
    data: bytes


@dataclass(slots=True)
class TileBuilder:
    """Turn leaves, in order, into the files of the log; knows only the tiles still open."""

    size: int = 0
    _leaves: list[bytes] = field(default_factory=list[bytes])
    _levels: list[list[bytes]] = field(default_factory=list[list[bytes]])

    def add(self, leaf: bytes) -> list[TileFile]:
        """Take the next leaf; return the full files that it completes, entries first."""
        self._leaves.append(leaf)
        self.size += 1
        if len(self._leaves) < TILE_WIDTH:
            self._push(0, leaf_hash(leaf))
            return []
        full = [TileFile(bundle_path(self.size // TILE_WIDTH - 1), encode_bundle(self._leaves))]
        self._leaves = []
        return full + self._complete(0, leaf_hash(leaf))

    def add_hashes(self, hashes: list[bytes]) -> list[TileFile]:
        """Take the hashes of the next 256 leaves at once; return the hash tiles they complete.

        The size must be a multiple of 256. Of the entries there is no bundle then.
        """
        if self._leaves or len(hashes) != TILE_WIDTH:
            raise FormatError("a whole tile of leaves begins where one ended", code="tile")
        self.size += TILE_WIDTH
        tile = TileFile(tile_path(0, self.size // TILE_WIDTH - 1), b"".join(hashes))
        for _ in range(len(self._levels), 1):
            self._levels.append([])
        return [tile, *self._complete(1, tree_root(hashes))]

    def _complete(self, level: int, value: bytes) -> list[TileFile]:
        """Put a hash at the end of a level; return the tiles that are full by it."""
        full: list[TileFile] = []
        while True:
            hashes = self._push(level, value)
            if len(hashes) < TILE_WIDTH:
                return full
            index = (self.size >> TILE_HEIGHT * (level + 1)) - 1
            full.append(TileFile(tile_path(level, index), b"".join(hashes)))
            self._levels[level] = []
            level, value = level + 1, tree_root(hashes)

    def open_files(self) -> list[TileFile]:
        """Return the partial files of a log of this size, entries first."""
        files: list[TileFile] = []
        if self._leaves:
            path = bundle_path(self.size // TILE_WIDTH, len(self._leaves))
            files.append(TileFile(path, encode_bundle(self._leaves)))
        for level, hashes in enumerate(self._levels):
            if hashes:
                index = self.size >> TILE_HEIGHT * (level + 1)
                files.append(TileFile(tile_path(level, index, len(hashes)), b"".join(hashes)))
        return files

    def copy(self) -> TileBuilder:
        """Return an independent builder that goes on from here."""
        return TileBuilder(self.size, list(self._leaves), [list(level) for level in self._levels])

    def _push(self, level: int, value: bytes) -> list[bytes]:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(value)
        return self._levels[level]


@dataclass(slots=True)
class TileTree:
    """Compute roots and proofs of a tree of `size` leaves from its tiles.

    Raises:
        InputError: if a tile is missing.
        FormatError: if a tile has another length than its place demands, or a range is no part of
            the tree.
    """

    read: ReadFile
    size: int
    # The tiles read last, as many as 32 MiB hold: proofs of one tree share most of theirs.
    _tiles: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        return self.range_root(LeafRange(0, self.size))

    def leaf_hash(self, index: int) -> bytes:
        """Return the hash of one leaf."""
        return self.range_root(LeafRange(index, index + 1))

    def inclusion_path(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion path of leaf `index` in the tree of the first `size` leaves."""
        return [self.range_root(r) for r in inclusion_ranges(index, size)]

    def consistency_path(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the first `old` leaves are a prefix of the first `new`."""
        return [self.range_root(r) for r in subtree_consistency_ranges(0, old, new)]

    def range_root(self, leaves: LeafRange) -> bytes:
        """Return the root over a range that is a node, or the right edge, of some prefix's tree."""
        start, end = leaves.start, leaves.end
        if not 0 <= start <= end <= self.size:
            raise FormatError(f"no leaves [{start}, {end}) in a log of {self.size}", code="range")
        peaks: list[bytes] = []
        while start < end:
            height = (end - start).bit_length() - 1
            if start & ((1 << height) - 1):
                raise FormatError(f"leaves [{start}, {end}) are no subtree", code="range")
            peaks.append(self._node(height, start >> height))
            start += 1 << height
        if not peaks:
            return EMPTY_ROOT
        root = peaks.pop()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root

    def _node(self, height: int, index: int) -> bytes:
        """Return the root of leaves `[index << height, (index + 1) << height)`."""
        level, inside = divmod(height, TILE_HEIGHT)
        first = index << inside
        hashes = self._tile(level, first // TILE_WIDTH)
        at = first % TILE_WIDTH
        return tree_root(hashes[at : at + (1 << inside)])

    def _tile(self, level: int, index: int) -> list[bytes]:
        width = min(TILE_WIDTH, (self.size >> TILE_HEIGHT * level) - index * TILE_WIDTH)
        path = tile_path(level, index, width)
        data = self._tiles.get(path)
        if data is None:
            data = self._fetch(level, index, width)
            if len(self._tiles) >= _TILES_KEPT:
                # Another thread may have been as fast.
                self._tiles.pop(next(iter(self._tiles)), None)
            self._tiles[path] = data
        return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]

    def _fetch(self, level: int, index: int, width: int) -> bytes:
        path, cut = tile_path(level, index, width), width * HASH_BYTES
        try:
            data = self.read(path)
        except InputError:
            # A log that has grown may have dropped its partial tiles for the full one.
            path, data = tile_path(level, index), self.read(tile_path(level, index))
            if len(data) == TILE_WIDTH * HASH_BYTES:
                return data[:cut]
        if len(data) != cut:
            raise FormatError(f"{path} has {len(data)} bytes, not {cut}", code="tile")
        return data


def _index_path(index: int) -> str:
    path = f"{index % 1000:03}"
    while index := index // 1000:
        path = f"x{index % 1000:03}/{path}"
    return path


def _partial(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"
