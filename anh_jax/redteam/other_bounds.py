"""Attacks on the bound itself: a larger one, or one measured where it comes out large."""

import jax
import numpy as np

from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.trainer import StepAttack, Trainer
from anh_jax.training.bound_estimate import BoundEstimate
from anh_jax.training.declared_bound import DeclaredBound
from anh_jax.training.executor import Tree
from anh_jax.training.loop import BeforeUpdate, StepBatch
from anh_jax.training.state import State

# How often the poisoned profile is measured anew, steps.
_EVERY = 8
# By how much weights are multiplied to find a state at which rounding drowns the gradient.
_DOCTORED = (10.0, 100.0, 1e3)
# The largest stretch of a gradient, whatever was declared.
_LONGEST = 0.5


class _Stretching(Trainer):
    """Commits gradients that are too long by `stretch`."""

    stretch = 0.001

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        factor = np.float32(1 + self.stretch)
        return {**outputs, "gradient": jax.tree.map(lambda x: x * factor, outputs["gradient"])}


class _Inflating(_Stretching):
    """Declares that its own rounding is as large as the gradient."""

    bound = 1.0


class InflatedBound(StepAttack):
    """Declares a bound that would excuse its cheat."""

    name, family = "inflated-bound", "bound"
    what = "The declared bound is 1, and gradients are 0.1 % too long."
    trainer = _Inflating


class PoisonedSource:
    """Measures the declared bound by the real estimator, at whatever state it is shown."""

    def __init__(self, bench: RedTeamBench) -> None:
        self.newest: BoundEstimate | None = None
        self._bench = bench

    @property
    def before_update(self) -> BeforeUpdate:
        """Return what measures where a loop asks."""
        return self.measure

    def measure(self, batch: StepBatch, state: State, outputs: Tree, scalars: Tree) -> None:
        """Keep the estimate of doctored weights at which rounding is largest."""
        executor = self._bench.executor
        found: list[BoundEstimate] = []
        for factor in _DOCTORED:
            wild = np.float32(factor)
            doctored = {**state, "parameters": jax.tree.map(
                lambda x, wild=wild: x * wild, state["parameters"])}  # fmt: skip
            there = executor.gradient(doctored, batch.pieces)
            real = self._bench.once("declared bound", self._estimator)
            real.before_update(batch, doctored, there, executor.scalars(there))
            if real.newest is not None:
                found.append(real.newest)
        self.newest = max(found, key=lambda estimate: estimate.relative, default=self.newest)

    def _estimator(self) -> DeclaredBound:
        materials = self._bench.materials
        stored = materials.programs.stored["gradient"]
        return DeclaredBound(stored, materials.contract, run="doctored", every=1, kept=None)


class _Poisoning(_Stretching):
    """Declares what was measured at doctored states, and cheats within half of it."""

    def __init__(self, bench: RedTeamBench, bad: frozenset[int], *, turn: int = 0) -> None:
        super().__init__(bench, bad, turn=turn)
        self._source = PoisonedSource(bench)
        self.bound = self._source

    def gradient(self, state: State, step: int) -> Tree:
        if (step - 1) % _EVERY == 0:
            self._source.measure(self.bench.workbench.batch(step), state, {}, {})
        if (estimate := self._source.newest) is not None:
            self.stretch = min(estimate.relative / 2, _LONGEST)
            self.gained = {"declared bound": estimate.relative}
        return super().gradient(state, step)


class PoisonedProfile(StepAttack):
    """Measures the bound that it declares at states that it doctored for the purpose."""

    name, family = "poisoned-profile", "bound"
    what = "The declared bound is measured every 8 steps at doctored weights; cheats fill half."
    trainer = _Poisoning


ATTACKS = (InflatedBound(), PoisonedProfile())
