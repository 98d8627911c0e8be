"""On another mesh: honest steps lie within bounds, and what no rounding explains lies outside."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.preliminary import Opened, PreliminaryJudge
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.unmoved import Unmoved
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.workbench import MeshSizes

STEP = 10
TWO = MeshSizes(data=2)


@pytest.fixture(scope="module")
def opened(honest, trainers, workshop) -> Opened:
    """Return step 10 of the honest run, opened."""
    bench = workshop.bench(None, MeshSizes(), microbatch=None)
    executor, state = bench.executor, bench.executor.initial_state(3)
    for step in range(1, STEP + 1):
        before = kept_copy(state)
        outputs = executor.gradient(state, bench.batch(step).pieces)
        state = executor.update(state, outputs, executor.scalars(outputs), step)
    return Opened(before, outputs, state, exact=False)


@pytest.fixture(scope="module")
def judge(honest, trainers, workshop, opened):
    """Return a function that judges step 10 on two devices as opened."""
    row = trainers.transcript(honest).line.rows[STEP - 1].row
    first = workshop.bench(None, MeshSizes(), microbatch=None).executor.initial_state(3)
    unmoved = Unmoved(workshop.materials, first)
    judge = PreliminaryJudge(workshop.bench(None, TWO, microbatch=None), unmoved, alg="blake3")

    def judged(changed: Opened, row_changes: dict | None = None) -> StepResult:
        seen = dataclasses.replace(row, **(row_changes or {}))
        return judge.judge(changed, seen, StepResult(STEP, "unattestable", ""))

    return judged


def with_gradient(opened: Opened, change) -> Opened:
    gradient = change(opened.outputs["gradient"])
    return dataclasses.replace(opened, outputs={**opened.outputs, "gradient": gradient})


def scaled(factor: float):
    """Return a change of one tensor of a gradient."""

    def change(gradient):
        layers = gradient["layers"]
        kernel = layers["0"]["kernel"] * np.float32(factor)
        return {"layers": {**layers, "0": {**layers["0"], "kernel": kernel}}}

    return change


def test_honest_run_passes_on_another_mesh(honest, audited) -> None:
    results = audited(honest, 2, STEP, 17, mesh=TWO).results
    for result in results:
        assert result.outcome == "pass"
        assert result.words.startswith("within bounds on this mesh")
        assert 0 <= result.a <= 1 and 0 <= result.b <= 1


def test_another_mesh_really_gives_other_bits(honest, audited) -> None:
    own, other = audited(honest, 17).results, audited(honest, 17, mesh=TWO).results
    assert own[0].gradient_root != other[0].gradient_root
    assert (own[0].a, own[0].b) == (None, None)


def test_larger_learning_rate_is_outside_the_bounds(cheat, audited, trainers, other_class) -> None:
    # The committed state 16 is at hand as a training checkpoint, so the update can be judged.
    run = cheat(trainers.LargerRate(1.0001, step=16))
    assert trainers.only(audited(run, 16)).outcome == "unattestable"
    result = trainers.only(audited(run, 16, mesh=TWO))
    assert result.outcome == "refuted"
    assert "outside the bounds: B = " in result.words and "parameters/" in result.words
    assert result.a <= 1 < result.b


def test_committed_state_that_cannot_be_opened_is_not_judged_by_bounds(
    cheat, audited, trainers, other_class
) -> None:
    run = cheat(trainers.LargerRate(1.0001, step=13))
    result = trainers.only(audited(run, 13, mesh=TWO))
    assert (result.outcome, result.a, result.b) == ("unattestable", None, None)


def test_honest_step_as_opened_passes(judge, opened) -> None:
    assert judge(opened).outcome == "pass"


def test_tensor_changed_beyond_the_cap_is_refuted(judge, opened) -> None:
    result = judge(with_gradient(opened, scaled(1.001)))
    assert result.outcome == "refuted"
    assert "A = 10 at layers/0/kernel" in result.words


def test_what_was_reproduced_bit_for_bit_is_never_refuted(judge, opened) -> None:
    exact = dataclasses.replace(with_gradient(opened, scaled(1.001)), exact=True)
    result = judge(exact)
    assert result.outcome == "unattestable"
    assert "reproduced bit for bit in the run's own class" in result.words


def test_gradient_that_is_not_a_number_is_refuted(judge, opened) -> None:
    for bad in (math.nan, math.inf):
        result = judge(with_gradient(opened, scaled(bad)))
        assert result.outcome == "refuted"
        assert not result.a <= 1


def test_other_loss_norm_weight_or_flag_is_refuted(judge, opened, honest, trainers) -> None:
    row = trainers.transcript(honest).line.rows[STEP - 1].row
    larger = (float.fromhex(row.loss) * 1.001).hex()
    scalars = row.scalars
    changes = (
        {"loss": larger},
        {"loss": "nan"},
        {"scalars": dataclasses.replace(scalars, weight=(47.0).hex())},
        {"scalars": dataclasses.replace(scalars, finite=0)},
        {"scalars": dataclasses.replace(scalars, global_norm="inf")},
    )
    for change in changes:
        assert judge(opened, change).outcome == "refuted", change


def test_step_skipped_under_a_false_flag_is_refuted(judge, opened, honest, trainers) -> None:
    row = trainers.transcript(honest).line.rows[STEP - 1].row
    skipped = {**opened.before, "step": opened.after["step"]}
    changes = {"scalars": dataclasses.replace(row.scalars, finite=0)}
    result = judge(dataclasses.replace(opened, after=skipped), changes)
    assert (result.outcome, result.b) == ("refuted", 0.0)
    assert "A = inf at finite flag" in result.words


def test_other_forward_statistic_is_compared_by_the_same_rule(judge, opened) -> None:
    outputs = {**opened.outputs, "statistics": {"invented": jnp.ones(3)}}
    result = judge(dataclasses.replace(opened, outputs=outputs))
    assert result.outcome == "refuted"
    assert "invented: only on one side" in result.words


def test_changed_state_is_refuted_by_the_update(judge, opened) -> None:
    frozen = {**opened.after, "parameters": opened.before["parameters"]}
    assert judge(dataclasses.replace(opened, after=frozen)).outcome == "refuted"
    optimizer = jax.tree.map(lambda x: x * np.float32(1.0001), opened.after["optimizer"])
    moments = {**opened.after, "optimizer": optimizer}
    assert judge(dataclasses.replace(opened, after=moments)).outcome == "refuted"


def test_copied_paths_and_counters_must_be_equal(judge, opened) -> None:
    for change, words in (
        ({"step": jnp.uint32(STEP + 1)}, "step: state 10 counts 11"),
        ({"key": jax.random.key(1)}, "key: state 10 holds another value"),
    ):
        result = judge(dataclasses.replace(opened, after={**opened.after, **change}))
        assert result.outcome == "refuted" and result.words.startswith(words)


def test_no_path_of_the_state_can_change_unseen(judge, opened) -> None:
    for path, leaf in leaves_of(opened.after).items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == jnp.uint32:
            continue  # copied paths and counters: the test above
        values = np.array(leaf)
        values.flat[0] += np.float32(1e-3)
        leaves = {**leaves_of(opened.after), path: jnp.asarray(values)}
        changed = dataclasses.replace(opened, after=from_leaves(leaves))
        assert judge(changed).outcome == "refuted", path
