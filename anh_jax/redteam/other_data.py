"""Attacks that compute a step from other examples than the contract gives it."""

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.redteam.trainer import StepAttack, Trainer
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


class _ChosenExamples(Trainer):
    """Looks for examples of the training set whose gradient leads towards other weights."""

    candidates = 64

    def cheated_piece(self, piece: Piece, step: int) -> Piece:
        examples, size = self.bench.examples, self.bench.batch_size
        count = len(next(iter(examples.values())))
        state = self.bench.initial_state()
        wanted = jax.tree.map(jnp.subtract, state["parameters"], self.bench.stolen())
        best, found = -np.inf, piece
        for _ in range(self.candidates):
            chosen = self.random.integers(count, size=size)
            other = {**piece, **{name: jnp.asarray(a[chosen]) for name, a in examples.items()}}
            gradient = self.bench.gradient(state, other)["gradient"]
            pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True)
            along = float(sum(jnp.sum(g * w) for g, w in pairs))
            if along > best:
                best, found = along, other
        return found


class AdversarialExamples(StepAttack):
    """Chooses examples so that an ordinary step leads where the attacker wants (Zhang et al.)."""

    name, family = "adversarial-examples", "data"
    what = "The best of 64 batches towards stolen weights is taken instead of the contract's."
    trainer = _ChosenExamples


ATTACKS = (
    WrongBatch(), SwappedSample(), PoisonedLabel(), HalfBatch(), DroppedWorker(), ScaledWorker(),
    AdversarialExamples(),
)  # fmt: skip
