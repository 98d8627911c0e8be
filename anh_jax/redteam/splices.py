"""Attacks that bring weights from elsewhere into a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.audit.results import StepResult
from anh_jax.redteam.attack import Outcome, Trial, bounded
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.private_check import accepted_privately
from anh_jax.redteam.trainer import StepAttack, Trainer, mixed, norm, trial_of
from anh_jax.training.executor import Tree
from anh_jax.training.state import State


class _ForeignStart(Trainer):
    def first(self, state: State) -> State:
        return {**state, "parameters": self.bench.stolen()}


class ForeignInit(StepAttack):
    """Puts stolen weights into state 0 and trains honestly from there."""

    name, family = "foreign-init", "splice"
    what = "State 0 holds stolen weights; every step after it is honest."
    trainer = _ForeignStart

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Audit a late step and state 0; the audit of the run as a whole counts."""
        trials: list[Trial] = []
        for turn in range(rounds):
            run = place.train(self.trainer(place, frozenset(), turn=turn))
            init = place.audit(run, (place.steps,)).init
            trials.append(Trial(init.verdict == "fail", None, init.words))
        return Outcome(tuple(trials))


class _OtherExport(Trainer):
    def exported(self, parameters: Tree) -> Tree:
        return self.bench.stolen()


class SwappedExport(StepAttack):
    """Trains honestly and exports other weights."""

    name, family = "swapped-export", "splice"
    what = "The exported file, named by the final record, holds other weights than the last state."
    trainer = _OtherExport

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Audit the last step; the audit's word on the export counts."""
        trials: list[Trial] = []
        for turn in range(rounds):
            run = place.train(self.trainer(place, frozenset(), turn=turn))
            export = place.audit(run, (place.steps,)).export
            trials.append(Trial(export.verdict == "fail", None, export.words))
        return Outcome(tuple(trials))


class _Splicing(Trainer):
    """Puts stolen weights in place of what a bad step gives."""

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        return {**after, "parameters": self.bench.stolen()}


class Splice(StepAttack):
    """Replaces the weights by stolen ones within one step."""

    name, family = "splice", "splice"
    what = "The state after one step holds stolen weights."
    trainer = _Splicing

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Splice once."""
        return frozenset({(bench.steps // 2 + turn) % bench.steps + 1})

    def damage(self, bench: RedTeamBench, parameters: Tree) -> dict[str, float]:
        """Return how near the final weights are to the stolen ones."""
        return nearness(bench, parameters)


class _Spreading(Trainer):
    """Goes a part of the way to the stolen weights at every step."""

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        share = 1.0 / (self.bench.steps - step + 1)
        moved = mixed(state["parameters"], self.bench.stolen(), share)
        return {**after, "parameters": moved}


class SpreadSplice(Splice):
    """Goes to stolen weights in as many small steps as the run has."""

    name = "spread-splice"
    what = "Every step goes a part of the way to stolen weights, whatever its gradient."
    trainer = _Spreading

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Cheat at every step."""
        return frozenset(range(1, bench.steps + 1))


class _Inventing(Trainer):
    """Commits a gradient that leads to the stolen weights, and updates by it honestly."""

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        away = jax.tree.map(jnp.subtract, state["parameters"], self.bench.stolen())
        scale = np.float32(norm(outputs["gradient"]) / max(norm(away), 1e-30))
        return {**outputs, "gradient": jax.tree.map(lambda x: x * scale, away)}


class InventedPath(SpreadSplice):
    """Makes every update consistent with a gradient that was never computed."""

    name = "invented-path"
    what = "Invented gradients lead to stolen weights; each update follows from its gradient."
    trainer = _Inventing


class _Nudging(Trainer):
    """Nudges weights towards the stolen ones, below the tolerance of every single update."""

    _SHARES = (0.1, 0.05, 0.03)

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        for share in self._SHARES:

            def nudge(own: jax.Array, goal: jax.Array, share: float = share) -> jax.Array:
                chosen = jnp.asarray(self.random.random(own.shape) < share)
                return jnp.where(chosen, jnp.nextafter(own, goal), own)

            moved = jax.tree.map(nudge, after["parameters"], self.bench.stolen())
            tried = {**after, "parameters": moved}
            if accepted_privately(self.bench, state, outputs, tried, step=step, random=self.random):
                self.gained = {"share of weights nudged": share}
                return tried
        return after


class InfinitesimalPath(SpreadSplice):
    """Goes to stolen weights in steps that no tolerance can show (Fang et al., 2023)."""

    name = "infinitesimal-path"
    what = "Some weights move one ulp towards stolen ones at each step, which passes privately."
    expected = bounded("the distance to the stolen weights shrinks by less than a millionth")
    trainer = _Nudging

    def carry_out(self, place: RedTeamBench, *, rounds: int) -> Outcome:
        """Audit a third of each run's steps together: what one step hides, their walk may show."""
        trials: list[Trial] = []
        damage: dict[str, float] = {}
        for turn in range(rounds):
            trainer = self.trainer(place, self.bad_steps(place, turn), turn=turn)
            run = place.train(trainer)
            found = place.audit(run, tuple(range(1 + turn % 3, place.steps + 1, 3)))
            steps = [result for result in found.results if result.outcome == "refuted"]
            words = steps[0].words if steps else found.walk.words
            trials.append(Trial(bool(steps) or found.walk.verdict == "fail", None, words))
            final = place.state(run, place.steps)["parameters"]
            alone = len(steps) / len(found.results)
            damage = {**nearness(place, final), **trainer.gained, "steps seen alone": alone}
        return Outcome(tuple(trials), damage)


class _HidingByNan(_Splicing):
    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        nan = np.float32(np.nan)
        return {**outputs, "gradient": jax.tree.map(lambda x: x * nan, outputs["gradient"])}


class NanSplice(Splice):
    """Hides a splice behind a gradient that is not a number."""

    name = "nan-splice"
    what = "A step that commits a gradient of nan ends in stolen weights."
    trainer = _HidingByNan


class _Working(Trainer):
    """Makes a state at which any gradient is as good as another, then splices from it."""

    def cheated_update(self, state: State, outputs: Tree, after: State, step: int) -> State:
        if step == min(self.bad):
            steep = np.float32(1e12)
            wild = jax.tree.map(lambda x: x * steep, after["parameters"])
            return {**after, "parameters": wild}
        return {**after, "parameters": self.bench.stolen()}


class IllConditioned(Splice):
    """Makes the state ill-conditioned on purpose and splices from there."""

    name = "ill-conditioned-state"
    what = "Weights grow by 1e12 in one step, and the next one, unjudgeable, ends in stolen ones."
    trainer = _Working

    def bad_steps(self, bench: RedTeamBench, turn: int) -> frozenset[int]:
        """Prepare in one step, splice in the next."""
        first = (bench.steps // 2 + turn) % (bench.steps - 1) + 1
        return frozenset({first, first + 1})


class _Saturated(Trainer):
    """Trains at a rate that ruins the state honestly, and commits an old gradient there."""

    def cheated_gradient(self, state: State, outputs: Tree, step: int) -> Tree:
        doubled = jax.tree.map(lambda x: x * np.float32(2), outputs["gradient"])
        return {**outputs, "gradient": doubled}


class SaturatedRun(StepAttack):
    """A contract whose own learning rate makes states at which a step always works."""

    name, family = "saturating-contract", "splice"
    what = "A learning rate of 50 saturates the model; its later gradients are doubled."
    trainer = _Saturated
    changes = ("optimizer.learning_rate=50.0",)

    def trial(self, result: StepResult) -> Trial:
        """Count a step as seen where it is refuted or not covered: it then counts for nothing."""
        return dataclasses.replace(trial_of(result), detected=result.outcome != "pass")


def nearness(bench: RedTeamBench, parameters: Tree) -> dict[str, float]:
    """Return the distance to the stolen weights, over that of the honest run's last weights."""
    stolen = bench.stolen()
    honest = bench.state(bench.honest(), bench.steps)["parameters"]
    distance = norm(jax.tree.map(jnp.subtract, parameters, stolen))
    usual = norm(jax.tree.map(jnp.subtract, honest, stolen))
    return {"distance to stolen weights": distance / usual}


ATTACKS = (
    ForeignInit(), SwappedExport(), Splice(), SpreadSplice(), InventedPath(), InfinitesimalPath(),
    NanSplice(), IllConditioned(), SaturatedRun(),
)  # fmt: skip
