"""Digest a pytree on the host with numpy and the `blake3` package, or SHA-256.

Hashing costs one Python call per tile. No view of a device buffer outlives a call: a donating step
may follow at once.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from anh_jax.digest.compose import TreeDigest, compose
from anh_jax.digest.exchange import Exchange
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.hashes import OneHashes, bulk_hashes, one_hashes
from anh_jax.digest.large import LargeTensors
from anh_jax.digest.layout import TileOrder, lay_out
from anh_jax.errors import AnhError
from attest.digest_tree import MAX_STEP
from attest.errors import AttestError


def tree_digest(
    tree: object,
    *,
    step: int,
    alg: str = "blake3",
    exchange: Exchange | None = None,
    frozen: FrozenTops | None = None,
    threads: int = 1,
) -> TreeDigest:
    """Digest nested dicts of arrays and typed PRNG keys; every sharding gives the same root.

    Shards that hold whole tiles are hashed where they lie, on `threads` threads: one by default,
    for the others are the training step's, and a second takes a fifth more CPU. `exchange` is
    needed where an array is spread over processes; only digests cross between them. `frozen`
    remembers arrays that come back at another call; without it every array is read.

    Raises:
        AnhError: for a tree or a step without a byte layout, a missing `exchange`, or what is
            remembered of another algorithm.
        ReplicaError: if another process holds other bits of a value this one holds too.
    """
    if isinstance(step, bool) or not 0 <= step <= MAX_STEP:
        raise AnhError(f"digest: step {step!r} is not a count of completed steps")
    if frozen is not None and frozen.alg != alg:
        raise AnhError(f"digest: frozen arrays are remembered in {frozen.alg}; use it, not {alg}")
    try:
        hashes = one_hashes(alg)
        large = LargeTensors(bulk_hashes(alg), frozen, threads)
        return _tree_digest(tree, step, alg, hashes, large, exchange)
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


def _tree_digest(
    tree: object,
    step: int,
    alg: str,
    hashes: OneHashes,
    large: LargeTensors,
    exchange: Exchange | None,
) -> TreeDigest:
    laid = lay_out(tree)
    if laid.layout.remote:
        for value in laid.values:
            if isinstance(value, jax.Array):
                value.copy_to_host_async()  # start every transfer before waiting for one
    tops: dict[bytes, bytes] = {}
    for slot, value in zip(laid.layout.slots, laid.values, strict=True):
        if slot.tiles is not None:
            tops[slot.path_bytes] = _hash_small(hashes, slot.tiles, value)
        else:
            large.add(slot.leaf(value))
    tops |= large.finish(exchange)
    return compose(laid.layout, tops, step=step, alg=alg, notes=large.notes)


def _hash_small(hashes: OneHashes, tiles: TileOrder, value: Any) -> bytes:
    """Return the root of a small tensor's tiles; no view of its buffer outlives the call."""
    if tiles.direct:
        data = bytes(memoryview(value))
    else:
        # All of it lies here: a layout has an order of tiles for such tensors alone.
        array = value if isinstance(value, np.ndarray) else np.asarray(value.addressable_data(0))
        bits = array.view(tiles.word).reshape(tiles.split).transpose(tiles.axes)
        data = bits.tobytes()
    if len(tiles.order) == 1:
        return hashes.tile(data)
    rows = tiles.rows.unpack(data)
    digests = [hashes.tile(rows[place]) for place in tiles.order]
    while len(digests) > 1:
        pairs = zip(digests[::2], digests[1::2], strict=True)
        digests = [hashes.node(left + right) for left, right in pairs]
    return digests[0]
