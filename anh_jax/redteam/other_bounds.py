"""Attacks on the bound itself: a larger one, or one fitted to the cheat."""

import dataclasses
from typing import Any

import jax
import numpy as np

from anh_jax.redteam.attack import Outcome, Trial
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.trainer import StepAttack, Trainer
from anh_jax.training.executor import Tree
from anh_jax.training.state import State
from attest import numerics_class


class _Inflating(Trainer):
    """Declares that its own rounding is as large as the gradient."""

    bound = 1.0

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        longer = jax.tree.map(lambda x: x * np.float32(1.001), outputs["gradient"])
        return {**outputs, "gradient": longer}


class InflatedBound(StepAttack):
    """Declares a bound that would excuse its cheat."""

    name, family = "inflated-bound", "bound"
    what = "The declared bound is 1, and gradients are 0.1 % too long."
    trainer = _Inflating


class PoisonedProfile(StepAttack):
    """Writes tolerances into the contract that were fitted on cheated steps."""

    name, family = "poisoned-profile", "bound"
    what = "The contract's c and cap are as loose as the cheat needs; the reader's rule decides."
    trainer = Trainer

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Ask the reader's rule whether the contract's tolerances are those of its class."""
        honest = place.materials.contract.numerics
        trials: list[Trial] = []
        for turn in range(rounds):
            for name in ("c", "c_row", "cap"):
                loose: Any = dataclasses.replace(honest, **{name: (1e6 * (turn + 1)).hex()})
                seen = not numerics_class.standard(loose)
                trials.append(Trial(seen, None, f"{name} is {1e6 * (turn + 1):g}"))
        return Outcome(
            tuple(trials), {"honest profile passes": float(numerics_class.standard(honest))}
        )


ATTACKS = (InflatedBound(), PoisonedProfile())
