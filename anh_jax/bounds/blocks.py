"""The blocks of a tensor: the parts that are judged one by one, beside the tensor as a whole.

One norm for a tensor lets a whole backdoor into one row that no example feeds, and norms of rows
let it into the column of one dead unit (both measured). So blocks lie along every axis.

Axes of one element count for nothing. What then has no axis or one is a single block. A matrix has
its rows and its columns. With more axes, each index of each axis gives a block (the slice there),
and along an axis of at least 8 elements every line is a block as well.
"""

import math
from typing import Any, Protocol, TypeVar

import numpy as np

# Below this, a line has too few elements for its norm to be estimated from a few samples.
_SHORTEST_LINE = 8

Axes = tuple[int, ...]


class _Summable(Protocol):
    """An array of NumPy or of JAX."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def sum(self, axis: Any) -> Any: ...


T = TypeVar("T", bound=_Summable)


def block_axes(shape: tuple[int, ...]) -> tuple[Axes, ...]:
    """Return, for each family of blocks, the axes that a block of it extends along."""
    axes = tuple(axis for axis, size in enumerate(shape) if size != 1)
    if len(axes) < 2:
        return (axes,)
    slices = tuple(tuple(other for other in axes if other != axis) for axis in axes)
    if len(axes) == 2:
        return slices
    lines = tuple((axis,) for axis in axes if shape[axis] >= _SHORTEST_LINE)
    return slices + lines


def block_sums(x: T) -> tuple[T, ...]:
    """Return the sums of `x` over the blocks of each family, `x` being NumPy's or traceable JAX.

    A sum's shape is that of `x` without the axes that a block extends along, in the dtype of `x`:
    give squares to get squared norms, and on the host give float64.
    """
    return tuple(x.sum(axis=axes) for axes in block_axes(x.shape))


def block_shapes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the shape that `block_sums` gives for each family of a tensor of `shape`."""
    return tuple(
        tuple(size for axis, size in enumerate(shape) if axis not in axes)
        for axes in block_axes(shape)
    )


def block_sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many elements a block of each family has."""
    return tuple(math.prod(shape[axis] for axis in axes) for axes in block_axes(shape))


def block_name(shape: tuple[int, ...], family: int, index: int) -> str:
    """Return a block in index notation, such as `[3, :]` for row 3 of a matrix.

    `index` counts the blocks of a family in C order, as `argmax` does.
    """
    axes = block_axes(shape)[family]
    place = iter(np.unravel_index(index, block_shapes(shape)[family]))
    parts = (":" if axis in axes else str(int(next(place))) for axis in range(len(shape)))
    return f"[{', '.join(parts)}]"
