"""What digesting a tree costs, from its tensors' headers: bytes, hashes, what crosses the network.

For C chips that each hold the whole state: they share a tensor of more than `SHARED_BYTES` in
min(C, tiles) equal parts, and each hashes all of a smaller one. Where meshes split a state over
chips, each hashes what it holds, which is as much to within the small tensors. Every chip gives
one digest for each tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from anh_jax.digest.placement import SHARED_BYTES
from attest.digest_tree import set_turns, tile_turns
from attest.opening import Opening
from attest.tensor_header import TensorHeader

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class TreeCost:
    """Count what one digest of a tree takes on `chips` chips.

    Attributes:
        tensors: arrays in the tree.
        size: bytes in the tree, each value once.
        tiles: tiles in the tree.
        hashes: digests computed: tiles, nodes, tensors, set, structure and the whole.
        chip_size: bytes that each chip hashes.
        gathered: bytes of digests that every chip gets from all.
    """

    tensors: int
    size: int
    tiles: int
    hashes: int
    chip_size: int
    gathered: int


def tree_cost(headers: Sequence[TensorHeader], *, chips: int) -> TreeCost:
    """Count the work of one digest of the tensors with these headers on `chips` chips."""
    sizes = [math.prod(header.dims) * header.itemsize for header in headers]
    counts = [math.prod(header.grid) for header in headers]
    shares = [
        size // min(chips, count) if size > SHARED_BYTES else size
        for size, count in zip(sizes, counts, strict=True)
    ]
    tiles, tensors = sum(counts), len(headers)
    nodes = tiles - tensors
    return TreeCost(
        tensors=tensors,
        size=sum(sizes),
        tiles=tiles,
        # Tiles, nodes, tensors, the set's inner nodes, structure and state.
        hashes=tiles + nodes + tensors + (tensors - 1) + 2,
        chip_size=sum(shares),
        gathered=_DIGEST_BYTES * chips * tensors if chips > 1 else 0,
    )


def opening_bytes(headers: Sequence[TensorHeader], place: int, *, alg: str) -> int:
    """Return the size of the opening of the last tile of the tensor at `place`.

    `headers` are in the order of their path bytes. In a run's file the row and its path stand
    beside it, about 1.5 kB.
    """
    header = headers[place]
    index = tuple(count - 1 for count in header.grid)
    nothing = bytes(_DIGEST_BYTES)
    opening = Opening(
        alg=alg,
        header=header,
        index=index,
        tile=bytes(header.tile_bytes),
        siblings=(nothing,) * len(tile_turns(header.grid, index)),
        set_index=place,
        set_siblings=(nothing,) * len(set_turns(place, len(headers))),
        tensors=len(headers),
        structure=nothing,
        step=0,
    )
    return len(opening.to_bytes())
