"""On another mesh: honest steps lie within bounds, and what no rounding explains lies outside."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from anh_jax.audit.bounded import Opened
from anh_jax.audit.replay import kept_copy
from anh_jax.program.tree import from_leaves, leaves_of
from anh_jax.workbench import MeshSizes
from attest.spread_seed import step_seed

STEP = 10
TWO = MeshSizes(data=2)


def dead_inputs(kernel: np.ndarray) -> np.ndarray:
    """Return the rows of a kernel's gradient that no example feeds: pixels that are always 0."""
    return np.flatnonzero(np.abs(kernel).sum(1) == 0)


def test_honest_run_passes_on_another_mesh(honest, audited) -> None:
    findings = audited(honest, 1, 2, STEP, 17, mesh=TWO)
    for result in findings.results:
        assert result.outcome == "pass"
        assert result.words.startswith("within bounds")
        every = (result.a, result.a_row, result.zeros, result.a2, result.b, result.walk)
        assert all(0 <= value <= 1 for value in every)
        assert result.a > 0 and result.a_row > 0 and result.b > 0
    assert findings.walk.verdict == "pass"


def test_another_mesh_really_gives_other_bits(honest, audited) -> None:
    own, other = audited(honest, 17), audited(honest, 17, mesh=TWO)
    assert own.results[0].gradient_root != other.results[0].gradient_root
    assert (own.results[0].a, own.results[0].b) == (None, None)
    assert own.walk.verdict == "not checked"


def test_weighed_step_says_what_rounding_was_estimated_with(honest, audited) -> None:
    found = audited(honest, 17, mesh=MeshSizes(data=2))
    assert found.results[0].spread_seed == f"{step_seed(found.spread_seed, 17):016x}"
    assert audited(honest, 17).results[0].spread_seed == ""


def test_larger_learning_rate_is_outside_the_bounds(cheat, audited, trainers, other_class) -> None:
    # The committed state 16 is at hand as a training checkpoint, so the update can be judged:
    # another class alone refutes nothing, and the bounds are asked without being asked for.
    run = cheat(trainers.LargerRate(1.0001, step=16))
    for mesh in (None, TWO):
        result = trainers.only(audited(run, 16, mesh=mesh))
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


def test_tensor_changed_by_a_part_in_ten_thousand_is_refuted(judge, follow) -> None:
    result = judge(*follow(lambda kernel: kernel * np.float32(1.0001)))
    assert result.outcome == "refuted"
    assert result.a > 10 and "at layers/0/kernel" in result.words
    assert result.b <= 1


def test_row_that_no_example_feeds_takes_no_backdoor(judge, follow) -> None:
    def push(kernel):
        # A hundredth of what the tensor's tolerance would allow.
        kernel[dead_inputs(kernel)[0]] = 1e-9 * np.linalg.norm(kernel)
        return kernel

    result = judge(*follow(push))
    assert result.outcome == "refuted"
    assert result.a < 0.5
    assert result.zeros == math.inf and result.b <= 1
    assert "zeros = inf at layers/0/kernel[" in result.words


def test_row_that_is_hardly_fed_takes_no_backdoor(judge, follow, opened) -> None:
    kernel = np.array(leaves_of(opened.outputs["gradient"])["layers", "0", "kernel"])
    norms = np.linalg.norm(kernel, axis=1)
    weakest = int(np.argmin(np.where(norms > 0, norms, np.inf)))

    def push(kernel):
        kernel[weakest] += 3e-7 * np.linalg.norm(kernel) * (kernel[weakest] != 0)
        return kernel

    result = judge(*follow(push))
    assert result.outcome == "refuted"
    assert result.zeros == 0 and result.a_row > 1
    assert f"[{weakest}, :]" in result.words


def test_column_of_a_dead_unit_takes_no_backdoor(judge_by, workshop, opened, row) -> None:
    """A unit that nothing listens to: its column is zero, and A per tensor sees no change in it."""
    executor = workshop.bench(None, MeshSizes(), microbatch=None).executor
    bench = workshop.bench(None, MeshSizes(), microbatch=None)
    leaves = leaves_of(opened.before)
    kernel = np.array(leaves["parameters", "layers", "1", "kernel"])
    kernel[4] = 0
    leaves["parameters", "layers", "1", "kernel"] = jnp.asarray(kernel)
    for slot in ("first", "second"):
        moment = np.array(leaves["optimizer", slot, "layers", "0", "kernel"])
        moment[:, 4] = 0
        leaves["optimizer", slot, "layers", "0", "kernel"] = jnp.asarray(moment)
    before = from_leaves(leaves)
    honest = executor.gradient(before, bench.batch(STEP).pieces)

    def step(push: float) -> tuple[Opened, dict]:
        gradient = leaves_of(honest["gradient"])
        kernel = np.array(gradient["layers", "0", "kernel"])
        assert not kernel[:, 4].any()
        fed = np.abs(kernel).sum(1) > 0
        kernel[fed, 4] += push * np.linalg.norm(kernel, axis=1)[fed]
        gradient["layers", "0", "kernel"] = jnp.asarray(kernel)
        outputs = {**honest, "gradient": from_leaves(gradient)}
        scalars = executor.scalars(outputs)
        after = executor.update(kept_copy(before), outputs, scalars, STEP)
        told = {
            "loss": float(np.asarray(honest["loss"])).hex(),
            "scalars": dataclasses.replace(
                row.scalars, global_norm=float(np.asarray(scalars["globalNorm"])).hex()
            ),
        }
        return Opened(before, outputs, after, exact=False), told

    honest_one = judge_by(*step(0.0))
    assert honest_one.outcome == "pass", honest_one
    result = judge_by(*step(3e-7))
    assert result.outcome == "refuted"
    assert result.a <= 1 and result.b <= 1 and result.zeros == math.inf
    # Where local zeros are not bits (a bf16 class), columns and their effect see it.
    result = judge_by(*step(3e-7), numerics={"local_zeros": "ignored"})
    assert result.zeros == 0
    assert result.a_row == math.inf and "[:, 4]" in result.words
    assert result.a2 > 1
