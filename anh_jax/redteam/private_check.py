"""The public checks in an attacker's hands: how far may this step lean and still pass?"""

import numpy as np

from anh_jax.bounds.step_check import CommittedStep
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.step_numbers import numbers_of, row_numbers
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

_MARGIN = 0.8
_TRIES = 2


def accepted_privately(
    bench: RedTeamBench,
    before: State,
    outputs: Tree,
    after: State,
    *,
    step: int,
    random: np.random.Generator,
) -> bool:
    """Tell whether the checks accept a step with some room left.

    They are asked with seeds of the attacker's own; the auditor's cannot be known.
    """
    numbers = row_numbers(numbers_of(outputs, bench.executor.scalars(outputs)))
    committed = CommittedStep(step, before, outputs, after, numbers)
    check = bench.step_check()
    seeds = random.integers(1 << 62, size=_TRIES)
    found = [check.check(committed, seed=int(seed)) for seed in seeds]
    return all(f.outcome == "pass" and max(f.a.value, f.a_row.value) < _MARGIN for f in found)
