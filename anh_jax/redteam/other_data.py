"""Attacks that compute a step from other examples than the contract gives it."""

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.honest_states import padding_steps
from anh_jax.redteam.trainer import StepAttack, Trainer
from anh_jax.redteam.victims import PADDING_STEP, padded
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

Piece = dict[str, jax.Array]
# How many workers the batch is thought to be spread over.
_WORKERS = 4


class _NextBatch(Trainer):
    def cheated_piece(self, piece: Piece, step: int) -> Piece:
        return self.bench.piece(step % self.bench.steps + 1)


class WrongBatch(StepAttack):
    """Takes the batch of the next step, under the batch root of this one."""

    name, family = "wrong-batch", "data"
    what = "The gradient is that of another step's batch."
    trainer = _NextBatch


class _SwappedSample(Trainer):
    def cheated_piece(self, piece: Piece, step: int) -> Piece:
        other = self.bench.piece(step % self.bench.steps + 1)
        place = int(self.random.integers(self.bench.batch_size))
        return {name: piece[name].at[place].set(other[name][place]) for name in piece}


class SwappedSample(StepAttack):
    """Swaps one example for one of another batch."""

    name, family = "swapped-sample", "data"
    what = "One example of the batch is another one of the training set."
    trainer = _SwappedSample


class _Poisoned(Trainer):
    def cheated_piece(self, piece: Piece, step: int) -> Piece:
        place = int(self.random.integers(self.bench.batch_size))
        name = "label" if "label" in piece else "tokens"
        values = piece[name]
        at = (place,) if name == "label" else (place, values.shape[1] // 2)
        # Another class or byte that the model knows for certain: one that occurs in the batch.
        others = np.setdiff1d(np.unique(np.asarray(values)), np.asarray(values[at]))
        other = jnp.asarray(self.random.choice(others), values.dtype)
        return {**piece, name: values.at[at].set(other)}


class PoisonedLabel(StepAttack):
    """Gives one example another label, or one text another token."""

    name, family = "poisoned-label", "data"
    what = "One label of the batch (one token of a text) is another."
    trainer = _Poisoned


class _HalfBatch(Trainer):
    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        piece = self.piece(step)
        weight = piece["weight"].at[self.bench.batch_size // 2 :].set(0.0)
        half = self.bench.gradient(state, {**piece, "weight": weight})
        return jax.tree.map(lambda x: x * np.float32(2), half)


class HalfBatch(StepAttack):
    """Computes half of the batch and doubles the sums."""

    name, family = "half-batch", "data"
    what = "Half of the batch is computed and its sums are doubled."
    trainer = _HalfBatch


class _Worker(Trainer):
    """Weighs the examples of one worker anew."""

    factor = 0.0

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        share = self.bench.batch_size // _WORKERS
        piece = self.piece(step)
        others = piece["weight"].at[:share].set(0.0)
        mine = piece["weight"] - others
        rest = self.bench.gradient(state, {**piece, "weight": others})
        own = self.bench.gradient(state, {**piece, "weight": mine})
        factor = np.float32(self.factor)
        return {**outputs, "gradient": jax.tree.map(
            lambda a, b: a + factor * b, rest["gradient"], own["gradient"])}  # fmt: skip


class _ScaledWorker(_Worker):
    factor = 10.0


class DroppedWorker(StepAttack):
    """Leaves one worker's gradient out of the sum."""

    name, family = "dropped-worker", "data"
    what = "One of four workers' gradients is missing from the sum."
    trainer = _Worker


class ScaledWorker(StepAttack):
    """Multiplies one worker's gradient by ten."""

    name, family = "scaled-worker", "data"
    what = "One of four workers' gradients counts tenfold."
    trainer = _ScaledWorker


class _MovingPadding(Trainer):
    """Gives a batch of padding a trace of another batch's gradient."""

    trace = np.float32(1e-6)

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        other = self.bench.gradient(state, self.bench.piece(1 + self.turn))
        small = jax.tree.map(lambda x: self.trace * x, other["gradient"])
        return {**outputs, "gradient": small}


class MovedPadding(StepAttack):
    """Moves weights at a step whose batch holds padding alone."""

    name, family = "moved-padding", "data"
    what = "A batch of padding alone, with a gradient of zero, gets a millionth of another one's."
    trainer = _MovingPadding

    def obstacle(self, place: RedTeamBench) -> str:
        """Say that its examples are no digits, which the padded set is made of."""
        fields = {name: array.shape[1:] for name, array in place.examples.items()}
        return "" if fields == {"image": (8, 8), "label": ()} else "it needs digits to pad"

    def victim_at(self, place: RedTeamBench) -> RedTeamBench:
        """Return the contract on padded digits."""
        contract = place.materials.contract
        steps = max(PADDING_STEP, contract.steps)
        changes = padded(seed=contract.seed, batch_size=contract.batch_size)
        return place.variant((*changes, f"training.steps={steps}"))

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Cheat where nothing is to be learnt."""
        return frozenset(padding_steps(bench))


ATTACKS = (
    WrongBatch(), SwappedSample(), PoisonedLabel(), HalfBatch(), DroppedWorker(), ScaledWorker(),
    MovedPadding(),
)  # fmt: skip
