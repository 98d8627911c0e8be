"""Attacks on the order of steps and on the update rule."""

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.program.tree import leaves_of
from anh_jax.redteam.attack import bounded
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.trainer import StepAttack, Trainer, largest_matrix, with_leaf
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

# A unit in the last place of a float32 weight, as the largest share of the weight that it can be.
_UNIT = 2.0**-23
# The share of weights that a careful walk moves.
_WALKING_SHARE = 0.05


class _Skipping(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        return {**after, "parameters": state["parameters"], "optimizer": state["optimizer"]}


class SkippedStep(StepAttack):
    """Signs a step that was not taken."""

    name, family = "skipped-step", "order"
    what = "The state after the step is the state before it."
    trainer = _Skipping


class _Repeating(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        again = self.bench.update({**after, "step": state["step"]}, outputs, step)
        return {**after, "parameters": again["parameters"], "optimizer": again["optimizer"]}


class RepeatedStep(StepAttack):
    """Takes a step twice and signs it once."""

    name, family = "repeated-step", "order"
    what = "The update is applied twice."
    trainer = _Repeating


class _Stale(Trainer):
    """Remembers the state before the last one."""

    past: State | None = None

    def gradient(self, state: State, step: int) -> Tree:
        outputs = super().gradient(state, step)
        self.past = state
        return outputs

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        assert self.past is not None
        old = {**state, "parameters": self.past["parameters"]}
        return self.bench.gradient(old, self.piece(step))


class StaleGradient(StepAttack):
    """Computes the gradient at the weights of one step before."""

    name, family = "stale-gradient", "order"
    what = "The gradient is taken at the weights of the step before."
    trainer = _Stale
    first_step = 2
    noise_of = frozenset({"bf16"})


class _Rate(Trainer):
    factor = 1.01

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        factor = np.float32(self.factor)
        moved = jax.tree.map(
            lambda old, new: old + factor * (new - old), state["parameters"], after["parameters"]
        )
        return {**after, "parameters": moved}


class _RateSlightly(_Rate):
    factor = 1.0001


class RateOnePercent(StepAttack):
    """Uses a learning rate that is one percent too large."""

    name, family = "rate-1.01", "rule"
    what = "The learning rate is 1 % larger than the contract's."
    trainer = _Rate


class RateTenThousandth(StepAttack):
    """Uses a learning rate that is larger by a ten-thousandth."""

    name, family = "rate-1.0001", "rule"
    what = "The learning rate is 0.01 % larger than the contract's."
    trainer = _RateSlightly


def decay_at(place: RedTeamBench, step: int) -> np.float32:
    """Return the share of each weight that decay takes off at a step: learning rate times decay."""
    table = place.materials.constants
    rate = dict(zip(table.names, table.values[step - 1], strict=True))["learningRate"]
    return np.float32(rate) * np.float32(place.materials.experiment.optimizer.weight_decay)


class _NoDecay(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        pull = decay_at(self.bench, step)
        kept = jax.tree.map(
            lambda old, new: new + pull * old, state["parameters"], after["parameters"]
        )
        return {**after, "parameters": kept}


class NoWeightDecay(StepAttack):
    """Leaves weight decay out."""

    name, family = "no-weight-decay", "rule"
    what = "Weights do not decay."
    trainer = _NoDecay

    def obstacle(self, place: RedTeamBench) -> str:
        """Say that there is no decay to leave out."""
        if not place.materials.experiment.optimizer.weight_decay:
            return "the contract has no weight decay"
        seen = any(decay_at(place, step) >= _UNIT for step in range(1, place.steps + 1))
        return "" if seen else "weight decay is less than a unit in the last place at every step"

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Return steps whose decay is a unit in the last place of a weight or more.

        Less of it, as while a learning rate warms up, is within what the update may be rounded by:
        honest trainers too leave such weights as they are.
        """
        first = next(s for s in range(1, bench.steps + 1) if decay_at(bench, s) >= _UNIT)
        last = bench.steps
        return frozenset(
            min(max(step, first + turn), last) for step in super().bad_steps(bench, turn)
        )


class _Frozen(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        path = largest_matrix(after["parameters"])
        old = leaves_of(state["parameters"])[path]
        return {**after, "parameters": with_leaf(after["parameters"], path, old)}


class FrozenTensor(StepAttack):
    """Does not update the largest tensor."""

    name, family = "frozen-tensor", "rule"
    what = "The largest matrix is left as it was."
    trainer = _Frozen


class _Overwriting(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        slots = leaves_of(after["optimizer"])
        path = max(slots, key=lambda p: (slots[p].size, p))
        return {**after, "optimizer": with_leaf(
            after["optimizer"], path, slots[path] * np.float32(1.001))}  # fmt: skip


class OverwrittenAverage(StepAttack):
    """Overwrites a running average that the optimizer keeps."""

    name, family = "overwritten-average", "rule"
    what = "A moving average in the optimizer's state is multiplied by 1.001 after the step."
    trainer = _Overwriting

    def obstacle(self, place: RedTeamBench) -> str:
        """Say that the optimizer keeps nothing."""
        return "" if leaves_of(place.initial_state()["optimizer"]) else "it keeps no averages"


class _Forward(Trainer):
    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        larger = np.float32(1.001)
        return {
            **outputs,
            "loss": outputs["loss"] * larger,
            "statistics": jax.tree.map(lambda x: x * larger, outputs["statistics"]),
        }


class OverwrittenForward(StepAttack):
    """Commits another loss and other forward statistics than the forward pass gave."""

    name, family = "overwritten-forward", "rule"
    what = "Loss and forward statistics are committed 0.1 % too large."
    trainer = _Forward
    noise_of = frozenset({"bf16", "bf16_f32acc"})


class _Walking(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        walked = jax.tree.map(lambda x: jnp.nextafter(x, jnp.inf), after["parameters"])
        return {**after, "parameters": walked}


class UlpWalk(StepAttack):
    """Moves every weight by one unit in the last place at every step."""

    name, family = "ulp-walk", "rule"
    what = "Every weight moves one unit in the last place upwards, at every step."
    trainer = _Walking

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Walk at every step."""
        return frozenset(range(1, bench.steps + 1))


class _RareWalking(Trainer):
    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        def walk(value: jax.Array) -> jax.Array:
            chosen = jnp.asarray(self.random.random(value.shape) < _WALKING_SHARE)
            return jnp.where(chosen, jnp.nextafter(value, jnp.inf), value)

        return {**after, "parameters": jax.tree.map(walk, after["parameters"])}


class RareUlpWalk(UlpWalk):
    """Moves one weight in twenty by one unit in the last place, others at every step."""

    name = "rare-ulp-walk"
    what = "One weight in twenty, drawn anew at every step, moves one unit in the last place up."
    expected = bounded("a weight moves by one unit in its last place per step at most")
    trainer = _RareWalking


ATTACKS = (
    SkippedStep(), RepeatedStep(), StaleGradient(), RateOnePercent(), RateTenThousandth(),
    NoWeightDecay(), FrozenTensor(), OverwrittenAverage(), OverwrittenForward(), UlpWalk(),
    RareUlpWalk(),
)  # fmt: skip
