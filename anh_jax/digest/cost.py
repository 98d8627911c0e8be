"""What digesting a tree costs, from its tensors' headers: bytes, hashes, what crosses the network.

The tile is the unit of work. Chips that hold a tensor's shards hash what they hold; chips that
hold copies of it split its tiles. So with C chips a group of equal tiles takes ceil(tiles / C) of
them on the busiest chip, whatever the mesh.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
        chip_size: bytes that the busiest chip hashes.
        gathered: bytes of digests that every chip receives from the others: the roots of the
            subtrees that each of them made.
    """

    tensors: int
    size: int
    tiles: int
    hashes: int
    chip_size: int
    gathered: int


def tree_cost(headers: Sequence[TensorHeader], *, chips: int) -> TreeCost:
    """Count the work of one digest of the tensors with these headers on `chips` chips."""
    equal: Counter[int] = Counter()
    roots = 0
    for header in headers:
        tiles = math.prod(header.grid)
        equal[header.tile_bytes] += tiles
        roots += min(tiles, chips)
    tiles = sum(equal.values())
    nodes = tiles - len(headers)
    return TreeCost(
        tensors=len(headers),
        size=sum(size * count for size, count in equal.items()),
        tiles=tiles,
        hashes=tiles + nodes + len(headers) + (len(headers) - 1) + 2,
        chip_size=sum(size * -(-count // chips) for size, count in equal.items()),
        gathered=_DIGEST_BYTES * roots if chips > 1 else 0,
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
