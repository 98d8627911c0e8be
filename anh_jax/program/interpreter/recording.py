"""Named values of an evaluation, in the order in which they were computed.

Values inside a scanned loop are stacked: a leading axis for each loop around them, outermost first.
`Recording.entries` takes them apart again, iteration by iteration, which is the order a bisection
needs: the first value that differs is where the fault is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stacked:
    """Describe a scanned loop among recorded values: how often it ran, what was kept inside."""

    count: int
    inside: "Layout"


Layout: TypeAlias = tuple[str | Stacked, ...]


@dataclass(frozen=True)
class Entry:
    """Hold one recorded value: `name` says the iteration, such as `main/4.do[1]/7`."""

    name: str
    value: Any


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Recording:
    """Hold the result of an evaluation and the values recorded on the way.

    A recording may leave `jax.jit`. Taking outputs out of a compiled program changes how it is
    fused and so its last bits: compare only recordings made with the same `only`.

    Attributes:
        result: what the program returned.
        layout: names, and loops with the names inside, in execution order.
        values: the arrays, in the order of the names.
    """

    result: Any
    layout: Layout
    values: tuple[Any, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        """Return the arrays and, apart, what is static."""
        return (self.result, self.values), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, children: Any) -> "Recording":
        """Rebuild a recording from what `tree_flatten` gave."""
        result, values = children
        return cls(result, layout, tuple(values))

    def entries(self) -> Iterator[Entry]:
        """Yield every value in execution order, stacked ones iteration by iteration."""
        values = [np.asarray(x) for x in self.values]
        yield from _entries(self.layout, values, ())

    @property
    def names(self) -> tuple[str, ...]:
        """Return the static names, each loop's once."""
        return tuple(_names(self.layout))


@dataclass(frozen=True)
class Difference:
    """Hold the first value at which two recordings differ, and the two values."""

    name: str
    left: NDArray[Any]
    right: NDArray[Any]


def first_difference(left: Recording, right: Recording) -> Difference | None:
    """Return the first value whose bits differ, None where all are equal.

    Raises:
        ValueError: the two did not record the same values.
    """
    for a, b in zip(left.entries(), right.entries(), strict=True):
        if a.name != b.name or a.value.shape != b.value.shape:
            raise ValueError(f"recordings of other values: {a.name} against {b.name}")
        if a.value.tobytes() != b.value.tobytes():
            return Difference(a.name, a.value, b.value)
    return None


@dataclass
class Recorder:
    """Collects values while a program is evaluated."""

    only: Callable[[str], bool]
    layout: list[str | Stacked] = field(default_factory=list[str | Stacked])
    values: list[Any] = field(default_factory=list[Any])

    def keep(self, name: str, iterations: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """Keep an operator's outputs, if its name is asked for."""
        if not self.only(name):
            return
        # A loop that Python runs is already one entry for each iteration.
        told = numbered(name, iterations) if _told(iterations) else name
        for place, value in enumerate(outputs):
            self.layout.append(told if len(outputs) == 1 else f"{told}#{place}")
            self.values.append(value)

    def inner(self) -> "Recorder":
        """Return a recorder for a loop's body."""
        return Recorder(self.only)

    def stack(self, count: int, inner: "Recorder", values: tuple[Any, ...]) -> None:
        """Keep what a loop's body recorded, stacked by the scan."""
        self.layout.append(Stacked(count, tuple(inner.layout)))
        self.values.extend(values)


def numbered(name: str, iterations: tuple[int, ...]) -> str:
    """Return the name with the loops' counters written in, outermost first."""
    for iteration in iterations:
        name = name.replace("[*]", f"[{iteration}]", 1)
    return name


def _told(iterations: tuple[Any, ...]) -> bool:
    return bool(iterations) and all(isinstance(n, int) for n in iterations)


def _entries(layout: Layout, values: list[Any], at: tuple[int, ...]) -> Iterator[Entry]:
    place = 0
    for item in layout:
        if isinstance(item, str):
            yield Entry(numbered(item, at), values[place][at])
            place += 1
            continue
        count = _count(item.inside)
        for iteration in range(item.count):
            yield from _entries(item.inside, values[place : place + count], (*at, iteration))
        place += count


def _names(layout: Layout) -> Iterator[str]:
    for item in layout:
        if isinstance(item, str):
            yield item
        else:
            yield from _names(item.inside)


def _count(layout: Layout) -> int:
    return sum(1 for _ in _names(layout))
