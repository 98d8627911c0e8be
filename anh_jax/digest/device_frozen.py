"""Leave frozen weights out of what devices hash: the program for the rest is compiled once.

An update that returns a tensor unchanged still returns a new array, which is hashed again. Weights
outside the update, as in low-rank adaptation, come back as the same objects.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from anh_jax.digest.compose import TreeDigest, compose
from anh_jax.digest.device import DeviceDigest, PendingTops, read_values
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.layout import LaidOut, Layout
from anh_jax.errors import AnhError

# A smaller tensor costs less to hash at every step than a program without it to compile.
SMALLEST_BYTES = 1 << 16
_REMEMBERED = 64


class FrozenAside:
    """Digests on devices as `inner` does, and large arrays that come back only once.

    `frozen` is what is remembered, of the same algorithm. It is for meshes of one process: what is
    the same object on one process may be none on another, and their programs would not meet.
    """

    def __init__(self, inner: DeviceDigest, frozen: FrozenTops) -> None:
        if inner.alg != frozen.alg:
            raise AnhError(
                f"digest: frozen arrays are remembered in {frozen.alg}; use it, not {inner.alg}"
            )
        if jax.process_count() > 1:
            raise AnhError(
                "digest: arrays are remembered in one process only; hash all of them at every step"
            )
        self._inner = inner
        self._frozen = frozen
        # With each part stands the layout it was taken from: alive, nothing else has its id.
        self._parts: dict[tuple[int, tuple[int, ...]], tuple[Layout, Layout]] = {}

    @property
    def lag(self) -> int:
        """Return the steps between `start` and `result`."""
        return self._inner.lag

    def start(self, tree: Any, *, step: int, every_replica: bool = False) -> "FrozenPending":
        """Begin to digest a tree; errors as `DeviceDigest.start` says.

        With `every_replica` every array is read, whatever is remembered of it.
        """
        laid = read_values(tree, step)
        known = {} if every_replica else self._known(laid)
        rest = self._rest(laid, known)
        tops = None if rest is None else self._inner.start_laid(rest, every_replica=every_replica)
        live = () if rest is None else _large(rest)
        digest = _Digest(laid.layout, known, step, self._inner.alg)
        return FrozenPending(digest, tops, live, self._frozen)

    def _known(self, laid: LaidOut) -> dict[bytes, bytes]:
        known: dict[bytes, bytes] = {}
        for slot, value in zip(laid.layout.slots, laid.values, strict=True):
            top = self._frozen.find(value) if value.nbytes >= SMALLEST_BYTES else None
            if top is not None:
                known[slot.path_bytes] = top
        return known

    def _rest(self, laid: LaidOut, known: Mapping[bytes, bytes]) -> LaidOut | None:
        """Return what is still to be hashed; None where all of it is known."""
        if not known:
            return laid
        slots = laid.layout.slots
        places = tuple(i for i, slot in enumerate(slots) if slot.path_bytes not in known)
        if not places:
            return None
        part = self._parts.get((id(laid.layout), places))
        if part is None:
            if len(self._parts) >= _REMEMBERED:
                self._parts.clear()
            layout = replace(laid.layout, slots=tuple(slots[i] for i in places))
            part = laid.layout, layout
            self._parts[id(laid.layout), places] = part
        return LaidOut(part[1], [laid.values[i] for i in places])


@dataclass(frozen=True, slots=True)
class _Live:
    """A large array that is being hashed, as long as somebody else holds it."""

    path_bytes: bytes
    array: "weakref.ref[jax.Array]"


@dataclass(frozen=True, slots=True)
class _Digest:
    layout: Layout
    known: Mapping[bytes, bytes]
    step: int
    alg: str


class FrozenPending:
    """A digest of which some roots are known; it holds no buffer of the tree."""

    def __init__(
        self,
        digest: _Digest,
        tops: PendingTops | None,
        live: tuple[_Live, ...],
        frozen: FrozenTops,
    ) -> None:
        self._digest = digest
        self._tops = tops
        self._live = live
        self._frozen = frozen

    def result(self) -> TreeDigest:
        """Wait for the digest; ReplicaError if devices hold different bits, naming both."""
        digest, found, notes = self._digest, dict[bytes, bytes](), ()
        if self._tops is not None:
            found, notes = self._tops.result(), self._tops.notes
        for live in self._live:
            array = live.array()
            if array is not None and not array.is_deleted():
                self._frozen.keep(array, found[live.path_bytes])
        tops = {**digest.known, **found}
        return compose(digest.layout, tops, step=digest.step, alg=digest.alg, notes=notes)


def _large(laid: LaidOut) -> tuple[_Live, ...]:
    pairs = zip(laid.layout.slots, laid.values, strict=True)
    return tuple(
        _Live(slot.path_bytes, weakref.ref(value))
        for slot, value in pairs
        if isinstance(value, jax.Array) and value.nbytes >= SMALLEST_BYTES
    )
