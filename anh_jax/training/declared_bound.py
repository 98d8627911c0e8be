"""The bound that a trainer declares with each row: its own estimate of what rounding may move.

It can only tighten what an auditor computes (docs/numerics_classes.md). One relative number holds
for all tensors of a gradient. It is measured every so many steps, from the state before the step
and a seed drawn from the run and the step, and scaled in between; the newest estimate lies in the
training checkpoint, so a resumed run writes the same rows.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.deviations import Spread
from anh_jax.bounds.spread import SpreadEstimator
from anh_jax.program.signature import StoredProgram
from anh_jax.program.tree import Path, Tree, leaves_of, path_text
from anh_jax.training.bound_estimate import BoundEstimate
from anh_jax.training.loop import StepBatch
from anh_jax.training.state import State, gradient_part
from attest.contract import Contract
from attest.numerics_class import ClassRules

SAFETY = 4.0
"""How far the declared bound lies above the estimate.

What nine samples deviate from their own mean by, even of noise with a single degree of freedom,
falls below a quarter of the truth once in 7,500 estimates (chi-square with 8 degrees of freedom).
So a bound that came out too small is still no tighter than an auditor's own c * spread, and refutes
nobody.
"""

# Nine draws deviate from their own mean in eight ways; an auditor, who may repeat himself, takes
# six.
_SAMPLES = 9


class DeclaredBound:
    """Measures every `every` steps, beginning with the first; `newest` is what rows are made from.

    `kept` is the estimate of the training checkpoint that the run goes on from.
    """

    def __init__(
        self,
        gradient: StoredProgram,
        contract: Contract,
        *,
        run: str,
        every: int,
        kept: BoundEstimate | None,
    ) -> None:
        self._estimator = SpreadEstimator(gradient, contract.numerics.rules, samples=_SAMPLES)
        self._rules = contract.numerics.rules
        self._ignored = frozenset(contract.numerics.null_gradients)
        self._run = run
        self._every = every
        self.newest = kept

    def before_update(self, batch: StepBatch, state: State, outputs: Tree, scalars: Tree) -> None:
        """Measure at the steps where it is due; the state is the one before the step."""
        if (batch.step - 1) % self._every:
            return
        spread = self._estimator.estimate(
            gradient_part(state), batch.pieces, state["key"], seed=bound_seed(self._run, batch.step)
        )
        norms = {path: float(x) for path, x in leaves_of(_norms(outputs["gradient"])).items()}
        relative = relative_bound(spread, norms, self._rules, self._ignored)
        norm = float(np.asarray(scalars["globalNorm"].addressable_data(0)))
        if relative is None or not 0.0 < norm < math.inf:
            self.newest = None
        else:
            self.newest = BoundEstimate(batch.step, relative, norm)


def bound_seed(run: str, step: int) -> int:
    """Return the 64-bit seed of a step's estimate, which nobody chooses."""
    digest = hashlib.sha256(f"anh declared bound\n{run}\n{step}\n".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def relative_bound(
    spread: Spread, norms: Mapping[Path, float], rules: ClassRules, ignored: frozenset[str]
) -> float | None:
    """Return the largest c * s / norm over the tensors, times `SAFETY`; None where there is none.

    `norms` are the gradient's by parameter path. A tensor whose gradient is zero everywhere has no
    relative bound and says nothing; `ignored` names those with a null gradient.
    """
    ratios: list[float] = []
    for path, norm in norms.items():
        if norm == 0.0 or path_text(path) in ignored:
            continue
        spread_norm = math.sqrt(spread.tensors[("gradient", *path)].square)
        ratios.append(max(spread_norm / norm, rules.phi * rules.unit_roundoff))
    if not ratios or not all(ratio < math.inf for ratio in ratios):
        return None
    return SAFETY * rules.c * max(ratios)


@jax.jit
def _norms(gradient: Any) -> Any:
    return jax.tree.map(lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))), gradient)
