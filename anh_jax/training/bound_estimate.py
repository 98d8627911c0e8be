"""The newest estimate of a declared bound, which rows are made from and checkpoints keep."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from anh_jax.training.loop import BeforeUpdate


@dataclass(frozen=True)
class BoundEstimate:
    """Hold what one measurement found.

    Attributes:
        step: the step it was made at.
        relative: bound over gradient norm, `c` and the safety factor included, the largest over
            the tensors.
        norm: global norm of the mean gradient of that step.
    """

    step: int
    relative: float
    norm: float

    def at(self, norm: float) -> float | None:
        """Return the relative bound of a step with this global norm; None where it has none.

        Noise is taken to stay as large while the gradient shrinks: the relative number grows by
        what the norm fell. Where the norm grew it stays, since noise grows with the gradient.
        """
        if not 0.0 < norm < math.inf:
            return None
        scaled = self.relative * max(1.0, self.norm / norm)
        return scaled if scaled < math.inf else None


@runtime_checkable
class BoundSource(Protocol):
    """Measures the declared bound; `training/declared_bound.py` is the one that trains use."""

    newest: BoundEstimate | None

    @property
    def before_update(self) -> BeforeUpdate:
        """Return what measures before an update where that is due."""
        ...
