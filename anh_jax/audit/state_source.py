"""Where an auditor takes the trainer's states and gradients from, and what he records without them.

A source may be a folder or a server on another machine. What it hands over counts for nothing
before its digest is the committed one, so a source need not be trusted, and a wrong answer from it
shows no more than no answer: anybody can answer in the trainer's name. Only an answer that the
trainer signed says something about the trainer.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from anh_jax.errors import AnhError
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

Part = Literal["state", "gradient"]
Answer = Literal["none", "refused", "other bytes", "other digest"]


@dataclass(frozen=True)
class Asked:
    """One tree of a run: the state after a step, or the gradient and statistics of a step.

    `row` is the hash of the row that commits it (of state 0, which genesis commits, the run id) and
    `committed` its digest there, 64 hex digits each.
    """

    part: Part
    step: int
    row: str
    committed: str


@dataclass(frozen=True)
class Signed:
    """A digest that the run key signed for a tree that was asked for: root and signature, hex."""

    root: str
    signature: str


@dataclass(frozen=True)
class Withheld:
    """What was asked for and not shown.

    Attributes:
        asked: the tree.
        answer: `none`; `refused` in words; `other bytes` in one place; or the digest of another
            tree.
        words: what happened, in one line of ASCII.
        path: the tensor at fault, keys joined by slashes; empty where it is the whole tree.
        tile: the tile at fault, one coordinate per axis of its grid; None where it is no one tile.
        digest: the digest of what was answered, hex: a tile's or a tree's; empty without one.
        signed: the run key's signature under another digest, which contradicts the run.
    """

    asked: Asked
    answer: Answer
    words: str
    path: str = ""
    tile: tuple[int, ...] | None = None
    digest: str = ""
    signed: Signed | None = None


class WithheldError(AnhError):
    """Report a tree that its source did not show; `withheld` says what was asked and answered."""

    exit_code = 1

    def __init__(self, withheld: Withheld) -> None:
        super().__init__(withheld.words)
        self.withheld = withheld


class StateSource(Protocol):
    """Hands over states and gradients of one run."""

    def state(self, asked: Asked, abstract: Tree) -> State:
        """Return the state after a step in the shapes, dtypes and shardings of `abstract`.

        Raises WithheldError where it is not to be had.
        """
        ...

    def outputs(self, asked: Asked, abstract: Tree) -> Tree:
        """Return `gradient` and `statistics` of a step in the shapes and dtypes of `abstract`.

        Raises WithheldError where they are not to be had.
        """
        ...
