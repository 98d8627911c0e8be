"""What one audit found: a result for each step, checks of the run as a whole, and what it took."""

from dataclasses import dataclass

from anh_jax.audit.drift import DriftFinding
from anh_jax.audit.results import Check, StepResult
from anh_jax.workbench import Counts


@dataclass(frozen=True)
class Findings:
    """Everything that an audit found.

    `walk` looks at the residuals of all weighed updates together, `drift` at those of all weighed
    gradients. `spread_seed` is what rounding was estimated with: 64 bits, which follow from final
    record and nonces (`attest.spread_seed`), and from which the checks can be repeated. `counts`
    are those of the verified final state over the hold-out set, None where that state could not be
    produced.
    `seconds` were spent on all steps together, compilation included, and `step_seconds` on each
    step alone, in order. `notes` are things met on the way.
    """

    results: tuple[StepResult, ...]
    init: Check
    line: Check
    export: Check
    walk: Check
    drift: DriftFinding
    spread_seed: int
    counts: Counts | None
    seconds: float
    step_seconds: tuple[float, ...]
    notes: tuple[str, ...]
