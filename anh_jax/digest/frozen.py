"""Remember the tile roots of arrays that come back unchanged: frozen weights cost one look-up.

A jax.Array is immutable, so the very same object has the very same tiles. The memory keeps nothing
alive, and an object that took a dead one's place does not find what was remembered of it.
"""

import weakref
from typing import Any

import jax


class FrozenTops:
    """Map arrays, by identity, to the 32-byte roots of their tiles.

    The roots are those of one algorithm, `alg`. What was written into the memory of an array behind
    JAX's back (a buffer shared with numpy, a flipped bit) is not seen: leave it out where the point
    is to read memory again, as an audit does.
    """

    def __init__(self, alg: str = "blake3") -> None:
        self.alg = alg
        self._known: dict[int, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, value: object) -> bytes | None:
        """Return the root remembered of this object; None for any other, also an equal one."""
        known = self._known.get(id(value))
        if known is None or known() is not value or not isinstance(value, jax.Array):
            return None
        return None if value.is_deleted() else known.top

    def keep(self, value: object, top: bytes) -> None:
        """Remember the root of an array's tiles; what is no jax.Array can change, and is not."""
        if isinstance(value, jax.Array):
            known = self._known
            place = id(value)
            known[place] = _Known(value, lambda dead: _forget(known, place, dead))
            known[place].top = top


class _Known(weakref.ref[Any]):
    """A reference that keeps nothing alive, and what is known of the array it leads to."""

    __slots__ = ("top",)
    top: bytes


def _forget(known: dict[int, _Known], place: int, dead: "weakref.ref[Any]") -> None:
    # Another array may stand at this place by now.
    if known.get(place) is dead:
        del known[place]
