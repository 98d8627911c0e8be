"""How often a run digests its whole state: from what a digest costs to `every N`.

The gradient's root is in every row. The state's root is in every N-th: the replay that reaches a
step between two of them runs at most N - 1 steps on committed gradients, so N is as small as the
cost allows. A trainer measures the three times before genesis, `anh digest --plan` predicts them;
both choose here, and a run never changes its choice.
"""

import math

from anh_jax.errors import AnhError

BUDGET = 0.01
"""The share of a step's time that digests may take."""

EVERY = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""The intervals that are chosen from, in steps."""


def digest_share(
    step_seconds: float, state_seconds: float, gradient_seconds: float, *, every: int
) -> float:
    """Return what digests add to an average step, as a fraction of the step's own time.

    `step_seconds` is the time of one step without digests; the others are one digest of the whole
    state and of one gradient. Raises AnhError where a time is no finite, non-negative number or
    the step takes none.
    """
    times = (step_seconds, state_seconds, gradient_seconds)
    if not all(math.isfinite(time) and time >= 0 for time in times) or step_seconds == 0:
        raise AnhError(
            f"digest policy: step {step_seconds} s, state {state_seconds} s, gradient "
            f"{gradient_seconds} s are no durations; measure again"
        )
    return gradient_seconds / step_seconds + state_seconds / every / step_seconds


def choose_every(
    step_seconds: float,
    state_seconds: float,
    gradient_seconds: float,
    *,
    longest: int,
    exact: bool,
) -> int:
    """Return N: the state is digested every N steps, the gradient at every one.

    Only entries of `EVERY` that divide `longest` are considered: with the interval of the training
    checkpoints as `longest`, the state of every checkpoint is among those digested. N is the first
    at which digests take less than `BUDGET` of the step. Where gradients alone take that much, it
    is the first at which states add less than a tenth to them: a longer interval would save next
    to nothing and only make replays longer. Where neither is reached, it is the last.

    N is 1 unless `exact`: within bounds a step is judged from the committed state before it, while
    a replay between committed states has to be exact. Raises AnhError for times that are no
    durations, see `digest_share`, and for `longest` below 1.
    """
    shares = {
        every: digest_share(step_seconds, state_seconds, gradient_seconds, every=every)
        for every in EVERY
        if longest > 0 and longest % every == 0
    }
    if not shares:
        raise AnhError(f"digest policy: the longest interval is {longest} steps; it is at least 1")
    if not exact:
        return 1
    for every, share in shares.items():
        if share < BUDGET:
            return every
    for every in shares:
        if 10 * state_seconds < every * gradient_seconds:
            return every
    return max(shares)
