"""An honest run passes; whatever a trainer does wrong in it is refuted, with the right words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.benches import Benches
from anh_jax.errors import ProgramError
from anh_jax.workbench import MeshSizes, read_materials


def test_honest_run_passes_in_every_respect(honest, audited, trainers) -> None:
    found = audited(honest, 1, 9, 20, trainers.STEPS)
    assert [result.outcome for result in found.results] == ["pass"] * 4
    assert {result.repeats for result in found.results} == {"equal"}
    assert (found.init.verdict, found.line.verdict, found.export.verdict) == ("pass",) * 3
    assert found.notes == ()
    assert found.counts.total == 359


def test_foreign_initial_weights_are_refuted(cheat, audited, trainers) -> None:
    class Stolen(trainers.Fault):
        def initial_state(self, state, bench):
            other = bench.executor.initial_state(99)
            return {**state, "parameters": other["parameters"]}

    found = audited(cheat(Stolen()), 3, 12)
    assert found.init.verdict == "fail"
    assert "by the contract's init, genesis commits" in found.init.words
    # From the training checkpoint of step 8 on, the run is what its rows say.
    assert [result.outcome for result in found.results] == ["withheld", "pass"]


def test_changed_example_is_refuted(cheat, audited, trainers) -> None:
    class Relabelled(trainers.Fault):
        def batch(self, batch):
            if batch.step != trainers.BAD:
                return batch
            (piece,) = batch.pieces
            piece = {**piece, "label": piece["label"].at[5].set(7 - piece["label"][5])}
            return dataclasses.replace(batch, pieces=(piece,))

    result = trainers.only(audited(cheat(Relabelled()), trainers.BAD))
    assert result.outcome == "refuted"
    assert "not the gradient of this batch at this state" in result.words


def test_another_batch_is_refuted_whatever_the_class(
    cheat, audited, trainers, workshop, other_class
) -> None:
    class Repeated(trainers.Fault):
        def batch(self, batch):
            if batch.step != trainers.BAD:
                return batch
            bench = workshop.bench(None, MeshSizes(), microbatch=None)
            return dataclasses.replace(bench.batch(trainers.BAD - 1), step=batch.step)

    result = trainers.only(audited(cheat(Repeated()), trainers.BAD))
    assert result.outcome == "refuted"
    assert "batch root: not that of the examples that the data order gives" in result.words


def test_one_wrong_gradient_element_is_refuted(cheat, audited, trainers) -> None:
    class Element(trainers.Fault):
        def gradient(self, outputs, step):
            if step != trainers.BAD:
                return outputs
            layers = outputs["gradient"]["layers"]
            bias = layers["0"]["bias"]
            moved = bias.at[3].set(jnp.nextafter(bias[3], jnp.inf))
            gradient = {"layers": {**layers, "0": {**layers["0"], "bias": moved}}}
            return {**outputs, "gradient": gradient}

    result = trainers.only(audited(cheat(Element()), trainers.BAD))
    assert result.outcome == "refuted"
    assert result.differs[0] == "gradient root"


def test_learning_rate_larger_by_a_ten_thousandth_is_refuted(cheat, audited, trainers) -> None:
    run = cheat(trainers.LargerRate(1.0001))
    result = trainers.only(audited(run, trainers.BAD))
    assert result.outcome == "refuted"
    assert result.differs == ("state root",)
    assert "the state was not updated as the contract says" in result.words


def test_frozen_tensor_is_refuted(cheat, audited, trainers) -> None:
    class Frozen(trainers.Fault):
        def update(self, before, after, step):
            if step != trainers.BAD:
                return after
            layers = {**after["parameters"]["layers"], "1": before["parameters"]["layers"]["1"]}
            return {**after, "parameters": {"layers": layers}}

    result = trainers.only(audited(cheat(Frozen()), trainers.BAD))
    assert (result.outcome, result.differs) == ("refuted", ("state root",))


def test_bad_step_on_the_way_is_refuted_once(cheat, audited, trainers) -> None:
    run = cheat(trainers.LargerRate(1.0001))
    first, second, third = audited(run, 5, trainers.BAD + 2, trainers.BAD + 3).results
    assert first.outcome == "pass"
    assert second.outcome == "refuted"
    assert second.words.startswith(f"step {trainers.BAD}, before it: state root")
    assert third.outcome == "withheld"


def test_state_edited_between_two_steps_is_refuted(cheat, audited, trainers) -> None:
    def edited_state(state):
        layers = state["parameters"]["layers"]
        moved = {**layers["0"], "bias": layers["0"]["bias"] + np.float32(1e-3)}
        return {**state, "parameters": {"layers": {**layers, "0": moved}}}

    class Trainer(trainers.FaultyExecutor):
        """Signs the honest state 13, then goes on from another one."""

        def gradient(self, state, pieces):
            edit = int(state["step"]) == trainers.BAD
            return super().gradient(edited_state(state) if edit else state, pieces)

        def update(self, state, outputs, scalars, step):
            state = edited_state(state) if step == trainers.BAD + 1 else state
            return super().update(state, outputs, scalars, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers, "FaultyExecutor", Trainer)
        run = cheat(trainers.Fault())
    honest_step, edited = audited(run, trainers.BAD, trainers.BAD + 1).results
    assert honest_step.outcome == "pass"
    assert (edited.outcome, edited.differs[0]) == ("refuted", "gradient root")


def test_other_exported_weights_are_refuted(cheat, audited, trainers) -> None:
    class Swapped(trainers.Fault):
        def exported(self, parameters):
            return jax.tree.map(lambda x: x * np.float32(1.0001), parameters)

    found = audited(cheat(Swapped()), 2)
    assert found.export.verdict == "fail"
    assert "model.safetensors" in found.export.words and "final names" in found.export.words
    assert trainers.only(found).outcome == "pass"


def test_configuration_with_another_plan_is_refused(honest, trainers) -> None:
    genesis = dataclasses.replace(trainers.transcript(honest).genesis, plan="0" * 64)
    with pytest.raises(ProgramError, match="plan is not"):
        Benches(read_materials(honest), genesis)
