"""Remember what a digest does not take from a tree's values: one tree comes back at every step.

A layout is made by `read_tree`, which checks everything. It serves again only for a tree of equal
nodes, text keys, array types, shapes, dtypes and shardings; what may differ then is values alone,
and whether a buffer was deleted, which is asked every time.
"""

import math
import struct
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import numpy as np
from jax.core import Tracer
from numpy.typing import NDArray

from anh_jax.digest.merge import merge_order
from anh_jax.digest.tree import Leaf, read_tree
from attest.digest_tree import LARGEST_BYTE, structure_bytes, tensor_bytes, tile_dims
from attest.tensor_header import TensorHeader, TensorKind

_REMEMBERED_TREES = 64
# Up to here the Python around a tensor's hashes costs as much as the hashes.
_SMALL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TileOrder:
    """Cut a small array into tiles so that each merge joins two neighbours of a list.

    `word` is an unsigned integer as wide as an element. `split` and `axes` reshape and transpose
    the array to one tile after the other in C order of the grid, `rows` cuts those bytes into
    tiles, and `order` lists them so that the first merge joins 0 with 1, 2 with 3. `direct` says
    whether they are had without numpy: tiles that follow one another, in one buffer of this host's
    memory, of a type that Python's buffer protocol has.
    """

    direct: bool
    word: np.dtype
    split: tuple[int, ...]
    axes: tuple[int, ...]
    rows: struct.Struct
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a layout: everything but its value.

    `place` is its position among the leaves as jax flattens the tree; `prefix` is what stands
    before its tiles' root in the tensor's material; `tiles` is None where the tensor is large,
    spread over devices, or not of plain little endian elements.
    """

    place: int
    header: TensorHeader
    path_bytes: bytes
    header_bytes: bytes
    prefix: bytes
    tiles: TileOrder | None

    def leaf(self, value: "jax.Array | NDArray") -> Leaf:
        """Return the tensor with a value."""
        return Leaf(self.header, self.path_bytes, self.header_bytes, value)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a tree by path bytes, and the material of its structure digest.

    `remote` says whether any value lies on an accelerator. `keys` are the slots of PRNG keys, and
    `words` keeps their words by place: a run's key is the same object at every step.
    """

    slots: tuple[Slot, ...]
    structure: bytes
    remote: bool
    keys: tuple[int, ...]
    words: dict[int, "_Words"] = field(default_factory=dict[int, "_Words"])


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A tree's layout and its tensors' values, in the order of the layout's slots."""

    layout: Layout
    values: "Sequence[jax.Array | NDArray]"


@dataclass(frozen=True, slots=True)
class _Words:
    key: jax.Array
    words: jax.Array


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A layout, and by place among jax's leaves what it asks of them: their types and marks."""

    kinds: Sequence[type]
    marks: Sequence[Hashable]
    layout: Layout


# By the nodes of a tree.
_REMEMBERED: dict[Hashable, list[_Remembered]] = {}


def lay_out(tree: object) -> LaidOut:
    """Return the layout of a tree of arrays and its values; AnhError as `read_tree` says."""
    seen = _see(tree)
    if seen is not None:
        for remembered in _REMEMBERED.get(seen.nodes, ()):
            if _fits(remembered, seen.leaves):
                return _laid_out(remembered.layout, seen.leaves)
    reading = read_tree(tree)
    places = None if seen is None else _places(tree)
    if places is not None and any(leaf.header.path not in places for leaf in reading.leaves):
        places = None  # a container of a type that is a leaf to jax, as a subclass of list
    slots = tuple(
        Slot(
            place=-1 if places is None else places[leaf.header.path],
            header=leaf.header,
            path_bytes=leaf.path_bytes,
            header_bytes=leaf.header_bytes,
            prefix=tensor_bytes(leaf.header_bytes, b""),
            tiles=_tile_order(leaf),
        )
        for leaf in reading.leaves
    )
    remote = any(_is_remote(leaf.value) for leaf in reading.leaves)
    keys = tuple(at for at, slot in enumerate(slots) if slot.header.kind is TensorKind.KEY)
    layout = Layout(slots, structure_bytes(reading.nodes), remote, keys)
    if seen is not None and places is not None:
        _remember(seen, layout)
    return LaidOut(layout, [leaf.value for leaf in reading.leaves])


@dataclass(frozen=True, slots=True)
class _Seen:
    nodes: Hashable
    leaves: Sequence[Any]


def _see(tree: object) -> _Seen | None:
    """Flatten a tree as jax does; None where its keys have no order, or it is far too deep."""
    try:
        leaves, nodes = jax.tree.flatten(tree)
    except (TypeError, ValueError, RecursionError, SystemError):
        return None
    return _Seen(nodes, leaves)


def _fits(remembered: _Remembered, leaves: Sequence[jax.Array]) -> bool:
    """Say whether leaves are arrays like those of a layout and still there."""
    words = remembered.layout.words
    places = zip(leaves, remembered.kinds, remembered.marks, strict=True)
    for place, (leaf, kind, mark) in enumerate(places):
        if type(leaf) is not kind or leaf.is_deleted():
            return False
        # Asking a PRNG key for its sharding costs more than digesting a small tensor.
        if place in words and words[place].key is leaf:
            continue
        if _mark(leaf) != mark:
            return False
    return True


def _mark(leaf: jax.Array) -> tuple[Hashable, ...]:
    return (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False), leaf.sharding)


def _remember(seen: _Seen, layout: Layout) -> None:
    for leaf in seen.leaves:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            return
    if sum(map(len, _REMEMBERED.values())) >= _REMEMBERED_TREES:
        _REMEMBERED.clear()
    kinds, marks = [type(leaf) for leaf in seen.leaves], [_mark(leaf) for leaf in seen.leaves]
    _REMEMBERED.setdefault(seen.nodes, []).append(_Remembered(kinds, marks, layout))


def _laid_out(layout: Layout, leaves: Sequence[jax.Array]) -> LaidOut:
    values = [leaves[slot.place] for slot in layout.slots]
    for at in layout.keys:
        key, place = values[at], layout.slots[at].place
        known = layout.words.get(place)
        if known is None or known.key is not key:
            known = layout.words[place] = _Words(key, jax.random.key_data(key))
        values[at] = known.words
    return LaidOut(layout, values)


def _places(tree: object) -> dict[tuple[str | int, ...], int] | None:
    """Return each path's place among jax's leaves; None where a dict has a key that is no text.

    Only texts are told apart by being equal: 1, 1.0 and True are one key to jax. The keys of what
    is empty count too.
    """
    places: dict[tuple[str | int, ...], int] = {}
    for entries, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_empty)[0]:
        path: list[str | int] = []
        for entry in entries:
            if isinstance(entry, jax.tree_util.DictKey) and isinstance(entry.key, str):
                path.append(entry.key)
            elif isinstance(entry, jax.tree_util.SequenceKey):
                path.append(entry.idx)
            else:
                return None
        if not _is_empty(leaf):
            places[tuple(path)] = len(places)
    return places


def _is_empty(node: object) -> bool:
    return node is None or (isinstance(node, dict | list | tuple) and not node)


def _is_remote(value: "jax.Array | NDArray") -> bool:
    return isinstance(value, jax.Array) and any(
        device.platform != "cpu" for device in value.sharding.device_set
    )


def _tile_order(leaf: Leaf) -> TileOrder | None:
    header, value = leaf.header, leaf.value
    count = math.prod(header.grid)
    plain = header.dtype not in LARGEST_BYTE and not header.dtype.startswith("complex")
    whole = not isinstance(value, jax.Array) or value.is_fully_replicated
    little = sys.byteorder == "little" and value.dtype.byteorder in "<=|"
    if not (plain and whole and little) or value.nbytes > _SMALL_BYTES or not value.size:
        return None
    tile = tile_dims(header.dims, header.grid)
    # numpy has 64 axes at most, and a cut makes two of each: those of one element are left out.
    cut = [axis for axis in zip(header.grid, tile, strict=True) if axis != (1, 1)]
    rank = len(cut)
    return TileOrder(
        direct=_follow(header.dims, header.grid) and _has_buffer(value),
        word=np.dtype(f"u{header.itemsize}"),
        split=tuple(extent for axis in cut for extent in axis),
        axes=(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)),
        rows=struct.Struct(f"{header.tile_bytes}s" * count),
        order=merge_order(header.grid),
    )


def _follow(dims: Sequence[int], grid: Sequence[int]) -> bool:
    """Say whether each tile is one piece of a C ordered array."""
    last = max((axis for axis, count in enumerate(grid) if count > 1), default=0)
    return tuple(dims[:last]) == tuple(grid[:last])


def _has_buffer(value: "jax.Array | NDArray") -> bool:
    """Say whether Python's buffer protocol reads an array's bytes."""
    if _is_remote(value):
        return False
    try:
        return len(bytes(memoryview(cast(Any, value)))) == value.nbytes
    except (BufferError, ValueError):  # more than one shard; no code for the type, as for bfloat16
        return False
