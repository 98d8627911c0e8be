"""A trainer of the red team: honest as it stands, cheating where a subclass overrides it.

It computes by the contract's own programs, so whatever differs from an honest run is its cheat and
not its arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.program.tree import Path as TreePath
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.redteam.attack import Attack, Expected, Outcome, Trial, within_noise
from anh_jax.training.bound_estimate import BoundSource
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

if TYPE_CHECKING:
    from anh_jax.audit.results import StepResult
    from anh_jax.redteam.bench import RedTeamBench


class Trainer:
    """Trains by the contract; `bad` are the steps that a subclass cheats on.

    `turn` numbers the repetitions of an attack, so that each one differs. `bound` is the relative
    bound that it declares with every step, or a source that measures it as it goes. `gained` is
    what it found out about its own success, by name.
    """

    bound: float | BoundSource | None = None

    def __init__(self, bench: RedTeamBench, bad: frozenset[int], *, turn: int = 0) -> None:
        self.bench = bench
        self.bad = set(bad)
        self.turn = turn
        self.random = np.random.default_rng(1000 + turn)
        self.gained: dict[str, float] = {}

    def begun(self, directory: Path) -> None:
        """Take notice of the run once genesis is signed, before its first step."""

    def first(self, state: State) -> State:
        """Return the state to begin with, given the contract's state 0."""
        return state

    def piece(self, step: int) -> dict[str, jax.Array]:
        """Return the examples of a step."""
        piece = self.bench.piece(step)
        return self.cheated_piece(piece, step) if step in self.bad else piece

    def gradient(self, state: State, step: int) -> Tree:
        """Return what the trainer commits as the outputs of a step's gradient program."""
        outputs = self.bench.gradient(state, self.piece(step))
        return self.cheated_gradient(state, outputs, step) if step in self.bad else outputs

    def update(self, state: State, outputs: Tree, step: int) -> State:
        """Return what the trainer commits as the state after a step."""
        after = self.bench.update(state, outputs, step)
        return self.cheated_update(state, outputs, after, step) if step in self.bad else after

    def cheated_piece(self, piece: dict[str, jax.Array], step: int) -> dict[str, jax.Array]:
        """Return other examples for a bad step."""
        return piece

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        """Return other outputs for a bad step."""
        return outputs

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        """Return another state for a bad step, given the honest one."""
        return after

    def batch_root(self, step: int, honest: bytes) -> bytes:
        """Return the batch root to sign, given that of the contract's batch."""
        return honest

    def exported(self, parameters: Tree) -> Tree:
        """Return the weights to export."""
        return parameters


class StepAttack(Attack["RedTeamBench"]):
    """A trainer that cheats on some steps, each of which is then audited.

    One trial is one cheated step; the steps are cold (the first), early, and late in the run.
    `detected` means that the step is refuted: what cannot be judged does not count as caught.
    """

    trainer: ClassVar[type[Trainer]]
    # Where the steps must not be the first: what needs a past.
    first_step: ClassVar[int] = 1
    # Changes of the configuration, `key=value`, that give the victim of this attack.
    changes: ClassVar[tuple[str, ...]] = ()

    # Numerics classes whose honest rounding can be as large as the attack.
    noise_of: ClassVar[frozenset[str]] = frozenset()

    def expected_at(self, place: RedTeamBench) -> Expected:
        """Return what is expected in the contract's numerics class."""
        own = place.materials.contract.numerics.class_
        return within_noise(own) if own in self.noise_of else self.expected

    def victim_at(self, place: RedTeamBench) -> RedTeamBench:
        """Return the contract that is attacked: this one, or this one with `changes`."""
        return place.variant(self.changes) if self.changes else place

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Return the steps to cheat on in one run."""
        last = bench.steps
        wanted = {self.first_step + turn, last // 3 + turn, 2 * last // 3 + turn}
        return frozenset(min(step, last) for step in wanted)

    def audited(self, bad: Iterable[int]) -> list[int]:
        """Return which of the cheated steps are audited."""
        return sorted(bad)

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Train a cheated run for each round and audit its cheated steps."""
        bench = self.victim_at(place)
        trials: list[Trial] = []
        damage: dict[str, float] = {}
        for turn in range(rounds):
            trainer = self.trainer(bench, self.bad_steps(bench, turn), turn=turn)
            run = bench.train(trainer)
            found = bench.audit(run, self.audited(trainer.bad))
            trials.extend(self.trial(result) for result in found.results)
            damage = self.damage(bench, bench.state(run, bench.steps)["parameters"])
            damage.update(trainer.gained)
        return Outcome(tuple(trials), damage)

    def trial(self, result: StepResult) -> Trial:
        """Return the trial that one audited step is."""
        return trial_of(result)

    def damage(self, bench: RedTeamBench, parameters: Tree) -> dict[str, float]:
        """Return by name what the attacker has gained, from the final weights."""
        return {}


def trial_of(result: StepResult) -> Trial:
    """Return the trial that one audited step is."""
    return Trial(result.outcome == "refuted", statistic_of(result), result.words)


def statistic_of(result: StepResult) -> float | None:
    """Return the largest statistic over its threshold that judged a step, nan above all."""
    found = [getattr(result, name, None) for name in ("a", "a_row", "a2", "b", "walk", "zeros")]
    known = [float(value) for value in found if value is not None]
    if any(value != value for value in known):
        return float("nan")
    return max(known, default=None)


def with_leaf(tree: Tree, path: TreePath, value: Any) -> Tree:
    """Return a tree in which one leaf is another."""
    return from_leaves({**leaves_of(tree), path: value})


def largest_matrix(tree: Tree) -> TreePath:
    """Return the path of the largest tensor of at least two axes."""
    leaves = {path: leaf for path, leaf in leaves_of(tree).items() if leaf.ndim > 1}
    return max(leaves, key=lambda path: (leaves[path].size, path))


def norm(tree: Any) -> float:
    """Return the L2 norm over all leaves."""
    leaves = jax.tree.leaves(tree)
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in leaves)))


def mixed(first: Tree, second: Tree, share: float) -> Tree:
    """Return the point between two trees at `share` of the way, 0 being the first."""
    weight = np.float32(share)
    return jax.tree.map(lambda a, b: a + weight * (b - a), first, second)


def example_fields_of(piece: Mapping[str, Any]) -> dict[str, Any]:
    """Return the examples without their ids and weights."""
    return {name: value for name, value in piece.items() if name not in ("id", "weight")}
