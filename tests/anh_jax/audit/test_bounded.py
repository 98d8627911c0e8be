"""On another mesh: honest steps lie within bounds, and what no rounding explains lies outside."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.bounded import BoundedJudge, Opened, step_seed
from anh_jax.audit.drift import DriftAccumulator
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.results import StepResult
from anh_jax.audit.unmoved import Unmoved
from anh_jax.bounds.step_check import StepCheck
from anh_jax.bounds.walk import PairwiseCosine
from anh_jax.errors import ProgramError
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
def row(honest, trainers):
    return trainers.transcript(honest).line.rows[STEP - 1].row


@pytest.fixture(scope="module")
def judge_by(honest, trainers, workshop, opened, row):
    """Return a function that judges step 10 on two devices, as opened, by estimated spreads."""
    first = workshop.bench(None, MeshSizes(), microbatch=None).executor.initial_state(3)
    unmoved = Unmoved(workshop.materials, first)
    bench = workshop.bench(None, TWO, microbatch=None)
    materials = workshop.materials

    def judged(
        changed: Opened,
        row_changes: dict | None = None,
        *,
        spreads: Any = None,
        numerics: dict | None = None,
    ) -> StepResult:
        seen = dataclasses.replace(row, **(row_changes or {}))
        contract = materials.contract
        rules = dataclasses.replace(contract.numerics, **(numerics or {}))
        bench.materials = dataclasses.replace(
            materials, contract=dataclasses.replace(contract, numerics=rules)
        )
        spreads = spreads or workshop.spreads(
            materials.programs.stored["gradient"], contract.numerics.rules
        )
        judge = BoundedJudge(
            StepCheck(bench, spreads), unmoved, alg="blake3", seed=7, walk=PairwiseCosine()
        )
        return judge.judge(changed, seen, StepResult(STEP, "unattestable", ""), DriftAccumulator())

    return judged


@pytest.fixture(scope="module")
def judge(judge_by):
    return judge_by


@pytest.fixture(scope="module")
def follow(workshop, opened, row):
    """Return a function that opens step 10 as an attacker would: honest but for its gradient."""
    executor = workshop.bench(None, MeshSizes(), microbatch=None).executor

    def followed(change) -> tuple[Opened, dict]:
        leaves = leaves_of(opened.outputs["gradient"])
        leaves[path] = jnp.asarray(change(np.array(leaves[path := ("layers", "0", "kernel")])))
        outputs = {**opened.outputs, "gradient": from_leaves(leaves)}
        scalars = executor.scalars(outputs)
        after = executor.update(kept_copy(opened.before), outputs, scalars, STEP)
        norm = float(np.asarray(scalars["globalNorm"])).hex()
        numbers = {"scalars": dataclasses.replace(row.scalars, global_norm=norm)}
        return Opened(opened.before, outputs, after, exact=False), numbers

    return followed


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


def test_seed_is_drawn_anew_by_each_auditor(honest, audited) -> None:
    seeds = {audited(honest, 17).spread_seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_each_step_has_a_seed_of_its_own() -> None:
    assert len({step_seed(seed, step) for seed in (0, 1) for step in (1, 2, 3)}) == 6
    assert step_seed(5, 9) == step_seed(5, 9)


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


def test_splice_covered_by_not_a_number_is_refuted(judge, opened, row) -> None:
    """Everything is NaN and the flag says so: the state after may then be anything honest."""
    gradient = jax.tree.map(lambda x: x * np.float32("nan"), opened.outputs["gradient"])
    spliced = Opened(
        opened.before,
        {**opened.outputs, "gradient": gradient},
        {**opened.before, "step": opened.after["step"]},
        exact=False,
    )
    scalars = dataclasses.replace(row.scalars, global_norm="nan", finite=0)
    result = judge(spliced, {"scalars": scalars, "loss": "nan"})
    assert result.outcome == "refuted"
    assert not result.a <= 1


@pytest.mark.parametrize("change", ["loss", "norm", "weight", "flag", "nan loss", "inf norm"])
def test_other_loss_norm_weight_or_flag_is_refuted(judge, opened, row, change) -> None:
    scalars = row.scalars
    norm = float.fromhex(scalars.global_norm)
    changes = {
        "loss": {"loss": (float.fromhex(row.loss) * 1.00001).hex()},
        "nan loss": {"loss": "nan"},
        "norm": {"scalars": dataclasses.replace(scalars, global_norm=(norm * 1.00001).hex())},
        "weight": {"scalars": dataclasses.replace(scalars, weight=(47.0).hex())},
        "flag": {"scalars": dataclasses.replace(scalars, finite=0)},
        "inf norm": {"scalars": dataclasses.replace(scalars, global_norm="inf")},
    }
    result = judge(opened, changes[change])
    assert result.outcome == "refuted"
    assert not result.a <= 1


def test_step_skipped_under_a_false_flag_is_refuted(judge, opened, row) -> None:
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


def test_missing_tensor_is_refuted(judge, opened) -> None:
    gradient = leaves_of(opened.outputs["gradient"])
    del gradient["layers", "0", "bias"]
    outputs = {**opened.outputs, "gradient": from_leaves(gradient)}
    result = judge(dataclasses.replace(opened, outputs=outputs))
    assert result.outcome == "refuted"
    assert "gradient/layers/0/bias: only on one side" in result.words


def test_changed_state_is_refuted_by_the_update(judge, opened) -> None:
    frozen = {**opened.after, "parameters": opened.before["parameters"]}
    assert judge(dataclasses.replace(opened, after=frozen)).outcome == "refuted"
    optimizer = jax.tree.map(lambda x: x * np.float32(1.0001), opened.after["optimizer"])
    moments = {**opened.after, "optimizer": optimizer}
    assert judge(dataclasses.replace(opened, after=moments)).outcome == "refuted"


def test_unit_added_to_every_parameter_is_a_walk(judge, opened) -> None:
    def up(x):
        return jnp.asarray(np.nextafter(np.asarray(x), np.float32(np.inf)))

    walked = {**opened.after, "parameters": jax.tree.map(up, opened.after["parameters"])}
    result = judge(dataclasses.replace(opened, after=walked))
    assert result.outcome == "refuted" and result.walk > 1
    assert "walk = " in result.words


def test_cap_makes_a_step_unattestable_and_hides_no_other_fault(judge, opened, follow) -> None:
    low = {"cap": (1e-9).hex()}
    result = judge(opened, numerics=low)
    assert result.outcome == "unattestable"
    assert "rounding is above the cap in gradient/layers/0/" in result.words
    frozen = {**opened.after, "parameters": opened.before["parameters"]}
    result = judge(dataclasses.replace(opened, after=frozen), numerics=low)
    assert result.outcome == "refuted" and result.b > 1

    def push(kernel):
        kernel[dead_inputs(kernel)[0]] = 1e-12
        return kernel

    assert judge(*follow(push), numerics=low).zeros == math.inf


def test_named_null_gradient_has_neither_cap_nor_effect(judge, opened) -> None:
    names = tuple(sorted("/".join(p) for p in leaves_of(opened.outputs["gradient"])))
    result = judge(opened, numerics={"cap": (1e-9).hex(), "null_gradients": names})
    assert result.outcome == "pass"
    assert result.a2 == 0


def test_declared_bound_of_a_row_tightens(judge, opened) -> None:
    plain, tight = judge(opened, {"bound": None}), judge(opened, {"bound": (3e-7).hex()})
    wide = judge(opened, {"bound": (1e9).hex()})
    assert plain.a == wide.a < tight.a
    assert judge(opened, {"bound": (0.0).hex()}).a == pytest.approx(
        judge(opened, {"bound": (1e-30).hex()}).a
    )


def test_effect_beyond_the_fraction_refutes_or_is_unattestable_by_class(judge, opened) -> None:
    tiny = {"a2": (1e-12).hex()}
    result = judge(opened, numerics=tiny)
    assert result.outcome == "refuted" and "A2 = " in result.words and result.a <= 1
    result = judge(opened, numerics={**tiny, "a2_excess": "unattestable"})
    assert result.outcome == "unattestable" and result.a2 > 1
    result = judge(opened, numerics={**tiny, "a2_exempt": ("adamw",)})
    assert result.outcome == "pass" and result.a2 is None


def test_program_that_rounding_cannot_be_followed_through_passes_nothing(judge, opened) -> None:
    class Blind:
        def estimate(self, *unused: Any, seed: int) -> Any:
            raise ProgramError("program gradient: operator of no known rounding")

        structural_zeros = estimate

    result = judge(opened, spreads=Blind())
    assert result.outcome == "unattestable" and result.b <= 1
    assert "rounding is above the cap" in result.words


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
