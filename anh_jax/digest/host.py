"""Digest a pytree on the host with numpy and the `blake3` package, or SHA-256.

Hashing costs one Python call per tile, so tiles are laid out in order and hashed row by row. No
view of a device buffer outlives a call: a donating step may follow at once.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from anh_jax.digest.compose import OneHashes, TreeDigest, compose, one_hashes
from anh_jax.digest.exchange import Exchange, Subtrees, completed
from anh_jax.digest.layout import TileOrder, lay_out
from anh_jax.digest.shards import Holding, hold
from anh_jax.digest.tiles import Bytes, tile_slabs
from anh_jax.digest.tree import Leaf, RowHash, merge
from anh_jax.errors import AnhError
from attest.digest_tree import (
    MAX_STEP,
    DigestLevel,
    LevelHash,
    merge_axes,
    refuse_algorithm,
    tensor_bytes,
    tile_dims,
)
from attest.errors import AttestError


def tree_digest(
    tree: object, *, step: int, alg: str = "blake3", exchange: Exchange | None = None
) -> TreeDigest:
    """Digest nested dicts of arrays and typed PRNG keys; every sharding gives the same root.

    Shards that hold whole tiles are hashed where they lie. `exchange` is needed where an array is
    spread over processes; only digests cross between them.

    Raises:
        AnhError: for a tree or a step without a byte layout, or a missing `exchange`.
        ReplicaError: if another process holds other bits of a value this one holds too.
    """
    if isinstance(step, bool) or not 0 <= step <= MAX_STEP:
        raise AnhError(f"digest: step {step!r} is not a count of completed steps")
    try:
        return _tree_digest(tree, step, alg, exchange)
    except AttestError as error:
        raise AnhError(f"digest: {error}") from error


def gradient_digest(
    outputs: Mapping[str, object],
    *,
    step: int,
    alg: str = "blake3",
    exchange: Exchange | None = None,
) -> TreeDigest:
    """Digest the summed gradients and forward statistics among a gradient program's outputs."""
    committed = {name: outputs[name] for name in ("gradient", "statistics")}
    return tree_digest(committed, step=step, alg=alg, exchange=exchange)


def row_hash(alg: str) -> RowHash:
    """Return the function that hashes rows of bytes at a level; InputError if `alg` is unknown."""
    if alg not in _ROW_HASHES:
        refuse_algorithm(alg)
    return _ROW_HASHES[alg]


def level_hash(hash_rows: RowHash) -> LevelHash:
    """Return the hash of one material at a level, for the levels above the tiles."""

    def hash_level(level: DigestLevel, material: bytes) -> bytes:
        return hash_rows(level, np.frombuffer(material, np.uint8)[None]).tobytes()

    return hash_level


def hash_tiles(hash_rows: RowHash, array: NDArray, tile: Sequence[int]) -> Bytes:
    """Return the tile digests of an array, uint8[*grid, 32]."""
    slabs = [hash_rows(DigestLevel.TILE, slab) for slab in tile_slabs(array, tile)]
    grid = (dim // extent if extent else 1 for dim, extent in zip(array.shape, tile, strict=True))
    return np.concatenate(slabs).reshape(*grid, 32)


def tensor_root(hash_level: LevelHash, header: bytes, top: Bytes) -> bytes:
    """Return a tensor's digest from its header and the root of its tiles."""
    return hash_level(DigestLevel.TENSOR, tensor_bytes(header, top.tobytes()))


def _tree_digest(tree: object, step: int, alg: str, exchange: Exchange | None) -> TreeDigest:
    hash_rows = row_hash(alg)
    hashes = one_hashes(alg)
    laid = lay_out(tree)
    if laid.layout.remote:
        for value in laid.values:
            if isinstance(value, jax.Array):
                value.copy_to_host_async()  # start every transfer before waiting for one
    tops: dict[bytes, bytes] = {}
    holdings: list[Holding] = []
    held: list[Subtrees] = []
    for slot, value in zip(laid.layout.slots, laid.values, strict=True):
        if slot.tiles is not None:
            tops[slot.path_bytes] = _hash_small(hashes, slot.tiles, value)
            continue
        leaf = slot.leaf(value)
        holdings.append(hold(leaf))
        held.append(_hash_held(hash_rows, leaf, holdings[-1]))
    for subtrees in completed(held, exchange):
        top = merge(hash_rows, subtrees.digests, subtrees.axes)
        tops[subtrees.leaf.path_bytes] = top.tobytes()
    notes = tuple(holding.note for holding in holdings if holding.note is not None)
    return compose(laid.layout, tops, step=step, alg=alg, notes=notes)


def _hash_small(hashes: OneHashes, tiles: TileOrder, value: "jax.Array | NDArray") -> bytes:
    """Return the root of a small tensor's tiles; no view of its buffer outlives the call."""
    # All of it lies here: a layout has an order of tiles for such tensors alone.
    array = value if isinstance(value, np.ndarray) else np.asarray(value.addressable_data(0))
    if len(tiles.order) == 1:
        return hashes.tile(array.tobytes())
    bits = array.view(tiles.word).reshape(tiles.split).transpose(tiles.axes)
    rows = tiles.rows.unpack(np.ascontiguousarray(bits).data)
    digests = [hashes.tile(rows[place]) for place in tiles.order]
    while len(digests) > 1:
        pairs = zip(digests[::2], digests[1::2], strict=True)
        digests = [hashes.node(left + right) for left, right in pairs]
    return digests[0]


def _hash_held(hash_rows: RowHash, leaf: Leaf, holding: Holding) -> Subtrees:
    """Hash the blocks held here up to the largest subtrees that lie within one block."""
    dims, grid, parts = leaf.header.dims, leaf.header.grid, holding.spread.parts
    axes = merge_axes(grid)
    remaining, count = list(grid), 0
    while count < len(axes) and remaining[axes[count]] > parts[axes[count]]:
        remaining[axes[count]] //= 2
        count += 1
    digests = np.zeros((*remaining, 32), np.uint8)
    owned = np.zeros(remaining, np.bool_)
    tile = tile_dims(dims, grid)
    for block in holding.blocks():
        merged = merge(hash_rows, hash_tiles(hash_rows, block.values, tile), axes[:count])
        place = tuple(
            slice(at * blocks // max(dim, 1), at * blocks // max(dim, 1) + extent)
            for at, blocks, dim, extent in zip(
                block.start, remaining, dims, merged.shape[:-1], strict=True
            )
        )
        digests[place], owned[place] = merged, True
    return Subtrees(leaf, digests, owned, axes[count:], holding.spread.complete)


def _rows(rows: Bytes) -> Iterator[bytes]:
    """Yield each row as bytes: copying it costs less than slicing a view of it."""
    count, width = rows.shape
    if width == 0:  # the one tile of an empty array
        return iter((b"",) * count)
    return (row for (row,) in struct.iter_unpack(f"{width}s", rows.reshape(-1).data))


def _digests(digests: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _blake3_rows(level: DigestLevel, rows: Bytes) -> Bytes:
    # One hasher for all rows: deriving the key from the context costs as much as a node.
    hasher = blake3(derive_key_context=level.context)
    digests: list[bytes] = []
    for row in _rows(rows):
        hasher.update(row)
        digests.append(hasher.digest())
        hasher.reset()
    return _digests(digests)


def _sha256_rows(level: DigestLevel, rows: Bytes) -> Bytes:
    tagged = hashlib.sha256(level.tag)
    digests: list[bytes] = []
    for row in _rows(rows):
        hasher = tagged.copy()
        hasher.update(row)
        digests.append(hasher.digest())
    return _digests(digests)


_ROW_HASHES: dict[str, RowHash] = {"blake3": _blake3_rows, "sha256": _sha256_rows}
