"""Holds the end of a recorded update to the committed state after the step.

A bounded optimizer's update mixes elements, so rounding of a sum reaches all of a tensor: its new
value may lie from the committed one as far as the cap of the contract's class allows of the step
it takes, and one rounding of each side besides.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anh_jax.bounds.statistic import Array, Statistic, host_leaves, largest, same_bits
from anh_jax.digest.host import tree_digest
from anh_jax.program.tree import Tree, path_text
from anh_jax.training.state import State, moved
from attest.numerics_class import ClassRules

EndVerdict = Literal["holds", "elsewhere", "undecided"]


@dataclass(frozen=True)
class CommittedUpdate:
    """What the rows around a recorded update commit: the states before and after, by the root.

    `after` is the committed state where it is at hand.
    """

    step: int
    alg: str
    root: str
    before: State
    after: State | None
    rules: ClassRules

    def same(self, outputs: Tree) -> bool:
        """Tell whether an update's outputs are the committed state, bit for bit."""
        found = tree_digest(moved(self.before, outputs), step=self.step, alg=self.alg)
        return found.root.hex() == self.root

    def distance(self, outputs: Tree) -> Statistic | None:
        """Return the largest distance of a tensor over its tolerance; None where none is shown."""
        after = self.after
        if after is None:
            return None
        return largest(
            self._tensor(f"{part}/{path_text(path)}", theirs, ours[path], olds[path])
            for part in ("parameters", "optimizer")
            for ours, olds in ((host_leaves(outputs[part]), host_leaves(self.before[part])),)
            for path, theirs in host_leaves(after[part]).items()
        )

    def _tensor(self, name: str, theirs: Array, ours: Array, old: Array) -> Statistic:
        if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            return Statistic(math.inf, f"{name}: another shape or dtype")
        if same_bits(theirs, ours):
            return Statistic(0.0, name)
        wide = ours.astype(np.float64)
        moved_by = _norm(wide - old.astype(np.float64))
        tolerance = self.rules.cap * moved_by + 2 * self.rules.roundoff.update * _norm(wide)
        distance = _norm(theirs.astype(np.float64) - wide)
        return Statistic(distance / tolerance if tolerance else math.inf, name)


def end_of_update(outputs: Tree, committed: CommittedUpdate) -> tuple[EndVerdict, str]:
    """Say in a verdict and in words whether a recorded update ends in the committed state."""
    if committed.same(outputs):
        return "holds", "every operator is within its bound, and the end is the committed state"
    found = committed.distance(outputs)
    if found is None:
        words = "it ends in other bits than the committed state, which is not at hand to weigh"
        return "undecided", words
    if found.accepted:
        words = (
            f"every operator is within its bound, and the end is the committed state within "
            f"rounding ({found.value:.2g} times the tolerance)"
        )
        return "holds", words
    words = (
        f"it ends in another state than the row commits: {found.where} is {found.value:.3g} times "
        "the tolerance away"
    )
    return "elsewhere", words


def _norm(array: Any) -> float:
    return float(np.linalg.norm(np.ravel(array)))
