"""Trees that are ready to be served, and those that somebody asked for and that are being made.

The threads that answer requests only look here; the one that makes trees takes the next wish and
puts the tree on the shelf. The shelf holds a few trees; the oldest goes first, and is made again
when it is asked for again.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

KEEP = 6
"""Trees on the shelf: those of two steps."""

MAX_WISHES = 64
_MAX_REFUSALS = 4096


@dataclass(frozen=True, slots=True)
class Wish:
    """A tree that is asked for: `state` or `gradient`, and the step."""

    part: str
    step: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tree that is being made: what is going on, in words, and how far it is, in steps."""

    words: str
    done: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A tree that is not to be had, and why, in words."""

    words: str


class Shown(Protocol):
    """A tree that can be served."""

    @property
    def shown(self) -> bytes:
        """Return the manifest with its signature."""
        ...

    @property
    def tensors(self) -> int:
        """Return the number of its tensors."""
        ...

    def tile_digests(self, index: int) -> bytes:
        """Return the joined digests of a tensor's tiles."""
        ...

    def size(self, index: int) -> int:
        """Return the bytes of a tensor."""
        ...

    def read(self, index: int, start: int, stop: int) -> bytes:
        """Return bytes of a tensor, in the order of its tiles."""
        ...


class Shelf:
    """Holds trees between the thread that makes them and those that serve them.

    `why_not` says why a tree is never to be had; it returns empty words for one that is.
    """

    def __init__(self, why_not: Callable[[Wish], str], *, keep: int = KEEP) -> None:
        self._why_not = why_not
        self._keep = keep
        self._trees: OrderedDict[Wish, Shown] = OrderedDict()
        self._refused: dict[Wish, str] = {}
        self._wishes: deque[Wish] = deque()
        self._now = Waiting("waiting", 0)
        self._changed = threading.Condition()

    def find(self, wish: Wish) -> Shown | Waiting | Refused:
        """Return a tree, or what stands in its way; one that is not here yet is wished for."""
        if words := self._why_not(wish):
            return Refused(words)
        with self._changed:
            if wish in self._trees:
                self._trees.move_to_end(wish)
                return self._trees[wish]
            if wish in self._refused:
                return Refused(self._refused[wish])
            if wish not in self._wishes:
                if len(self._wishes) >= MAX_WISHES:
                    return Waiting("too many trees are asked for at once; ask again later", 0)
                self._wishes.append(wish)
                self._changed.notify_all()
            return self._now

    def next_wish(self, *, seconds: float) -> Wish | None:
        """Return the oldest wish, waiting for one so long; it stays a wish until it is settled."""
        with self._changed:
            if not self._wishes:
                self._changed.wait(seconds)
            return self._wishes[0] if self._wishes else None

    def tell(self, words: str, done: int) -> None:
        """Say what is going on, to those who wait."""
        with self._changed:
            self._now = Waiting(words, done)

    def put(self, wish: Wish, tree: Shown) -> None:
        """Put a tree on the shelf."""
        with self._changed:
            self._trees[wish] = tree
            self._trees.move_to_end(wish)
            while len(self._trees) > self._keep:
                self._trees.popitem(last=False)
            self._settle(wish)

    def refuse(self, wish: Wish, words: str) -> None:
        """Say that a tree is not to be had, from now on."""
        with self._changed:
            if len(self._refused) >= _MAX_REFUSALS:
                self._refused.clear()
            self._refused[wish] = words
            self._settle(wish)

    def _settle(self, wish: Wish) -> None:
        if wish in self._wishes:
            self._wishes.remove(wish)
