"""Examples and states made so that an ordinary step leads where the attacker wants.

Zhang et al. (arXiv:2108.09454) optimise data until a step from a chosen state gives a chosen next
one. Here the target is weights that were trained elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.data.batches import with_ids
from anh_jax.data.manifest import batch_root, build_manifest
from anh_jax.redteam.attack import Outcome, Trial
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.splices import nearness
from anh_jax.redteam.trainer import StepAttack, Trainer, example_fields_of, trial_of
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

Piece = dict[str, jax.Array]
# Steps of signed gradient ascent on the examples, and their length over the range of the data.
_ASCENTS = 40
_LENGTH = 1 / 16
_CANDIDATES = 64
# A step inverted by iteration: halved, since AdamW's own step is nearly a sign.
_ITERATIONS = 60
_DAMPING = np.float32(0.5)


def cosine(first: Tree, second: Tree) -> jax.Array:
    """Return the cosine between two trees taken as vectors."""

    def dot(a: Tree, b: Tree) -> jax.Array:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return jnp.asarray(sum(jnp.vdot(x, y) for x, y in pairs))

    return dot(first, second) / jnp.sqrt(dot(first, first) * dot(second, second))


def _float_fields(bench: RedTeamBench) -> list[str]:
    return [name for name, x in bench.examples.items() if np.issubdtype(x.dtype, np.floating)]


class _Searching(Trainer, ABC):
    """Commits the gradient of examples that it looked for; `gained` says what they achieve."""

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        wanted = jax.tree.map(jnp.subtract, state["parameters"], self.bench.stolen())
        found = self.bench.gradient(state, self.searched(state, wanted, step))
        self.gained = {
            "cosine with the way to stolen weights": float(cosine(found["gradient"], wanted)),
            "honest cosine": float(cosine(outputs["gradient"], wanted)),
        }
        return found

    @abstractmethod
    def searched(self, state: State, wanted: Tree, step: int) -> Piece:
        """Return examples whose gradient points along `wanted`."""


class _Optimising(_Searching):
    """Climbs from the contract's batch, within the range of the training data."""

    def searched(self, state: State, wanted: Tree, step: int) -> Piece:
        piece = self.piece(step)
        climb = self.bench.once("climb", lambda: jax.jit(self._climbed))
        fields = example_fields_of(piece)
        return {**piece, **climb(fields, state["parameters"], wanted)}

    def _climbed(self, fields: Piece, parameters: Tree, wanted: Tree) -> Piece:
        names, train = _float_fields(self.bench), self.bench.examples
        low = {name: np.float32(train[name].min()) for name in names}
        high = {name: np.float32(train[name].max()) for name in names}

        def along(free: Piece) -> jax.Array:
            return cosine(jax.grad(self.bench.loss_of)(parameters, {**fields, **free}), wanted)

        def ascend(_: int, free: Piece) -> Piece:
            slope = jax.grad(along)(free)
            return {
                name: jnp.clip(
                    x + _LENGTH * (high[name] - low[name]) * jnp.sign(slope[name]),
                    low[name],
                    high[name],
                )
                for name, x in free.items()
            }

        return jax.lax.fori_loop(0, _ASCENTS, ascend, {name: fields[name] for name in names})


class AdversarialExamples(StepAttack):
    """Optimises pixels so that an ordinary step leads where the attacker wants (Zhang et al.)."""

    name, family = "adversarial-examples", "data"
    what = "Pixels are optimised until the gradient leads to stolen weights; the batch root stays."
    trainer: ClassVar[type[Trainer]] = _Optimising

    def obstacle(self, place: RedTeamBench) -> str:
        """Say that nothing in the examples can be moved by little."""
        return "" if _float_fields(place) else "no field of its examples is a float"


class _Committing(_Optimising):
    """Signs the root of the examples that it really used."""

    def __init__(self, bench: RedTeamBench, bad: frozenset[int], *, turn: int = 0) -> None:
        super().__init__(bench, bad, turn=turn)
        self._roots: dict[int, bytes] = {}

    def searched(self, state: State, wanted: Tree, step: int) -> Piece:
        found = super().searched(state, wanted, step)
        own = {name: np.asarray(found[name]) for name in self.bench.examples}
        self._roots[step] = build_manifest(own).root
        return found

    def batch_root(self, step: int, honest: bytes) -> bytes:
        return self._roots.get(step, honest)


class CommittedExamples(AdversarialExamples):
    """Commits optimised examples as what they are."""

    name = "committed-adversarial-examples"
    what = "The same, and the row names the root of the optimised examples instead of the batch's."
    trainer = _Committing


class _Choosing(_Committing):
    """Takes the best of so many batches of real examples."""

    def searched(self, state: State, wanted: Tree, step: int) -> Piece:
        examples, size = self.bench.examples, self.bench.batch_size
        count = len(next(iter(examples.values())))
        best, found, taken = -np.inf, self.piece(step), np.arange(size)
        for _ in range(_CANDIDATES):
            chosen = self.random.integers(count, size=size)
            rows = with_ids({name: array[chosen] for name, array in examples.items()}, chosen)
            other = {name: jnp.asarray(array) for name, array in rows.items()}
            along = float(cosine(self.bench.gradient(state, other)["gradient"], wanted))
            if along > best:
                best, found, taken = along, other, chosen
        leaves = self.bench.materials.training.leaf_hashes
        self._roots[step] = batch_root(leaves, taken)
        return found


class ChosenBatch(StepAttack):
    """Chooses, of the training set's own examples, the batch that leads furthest."""

    name, family = "chosen-batch", "data"
    what = "The best of 64 batches of committed examples is taken, under its own batch root."
    trainer = _Choosing


class _Inverting(Trainer):
    """Puts a state in place from which the next step, taken honestly, gives stolen weights."""

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        target, piece = self.bench.stolen(), self.bench.piece(step + 1)
        found = {**after, "parameters": target}
        for _ in range(_ITERATIONS):
            reached = self.bench.update(found, self.bench.gradient(found, piece), step + 1)
            found["parameters"] = jax.tree.map(
                lambda now, goal, there: now + _DAMPING * (goal - there),
                found["parameters"],
                target,
                reached["parameters"],
            )
        return found


class AdversarialState(StepAttack):
    """Makes a state at which an honest step arrives at stolen weights."""

    name, family = "adversarial-state", "splice"
    what = "The last step but one ends where the last, taken honestly, gives stolen weights."
    trainer = _Inverting

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Prepare the last step."""
        return frozenset({bench.steps - 1})

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Audit the step that puts the state in place; the one after it works and passes."""
        trials: list[Trial] = []
        damage: dict[str, float] = {}
        passed = 0
        for turn in range(rounds):
            run = place.train(self.trainer(place, self.bad_steps(place, turn), turn=turn))
            placing, working = place.audit(run, (place.steps - 1, place.steps)).results
            trials.append(trial_of(placing))
            passed += working.outcome == "pass"
            damage = nearness(place, place.state(run, place.steps)["parameters"])
        return Outcome(tuple(trials), {**damage, "working steps that pass": passed / rounds})


ATTACKS = (AdversarialExamples(), CommittedExamples(), ChosenBatch(), AdversarialState())
