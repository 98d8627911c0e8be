"""Each rule by which a step is judged within bounds decides a step of its own."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.audit.bounded import Opened
from anh_jax.errors import ProgramError
from anh_jax.program.tree import from_leaves, leaves_of

STEP = 10


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
    assert result.words.startswith("rounding cannot be followed to ")
    assert result.words.endswith(": program gradient: operator of no known rounding")
    assert "cap" not in result.words


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
