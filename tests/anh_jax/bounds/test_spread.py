"""A spread is that of the program's own rounding: its size, its zeros; it hides nothing."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.blocks import block_shapes
from anh_jax.bounds.deviations import Spread
from anh_jax.bounds.roundoff_hook import chained
from anh_jax.bounds.spread import SpreadEstimator, usual_samples
from anh_jax.bounds.variance import roundoff_variance
from anh_jax.errors import ProgramError
from anh_jax.program.interpret import read_refined
from anh_jax.program.tree import leaves_of
from attest.numerics_class import CLASSES
from tests.anh_jax.bounds import gradients

F32 = CLASSES["f32"]
U = 2.0**-24
FIRST, BIAS, SECOND = (("gradient", name) for name in ("first", "bias", "second"))


def estimate(estimator: SpreadEstimator, case: Any, seed: int = 1) -> Spread:
    return estimator.estimate(case.state, case.pieces, case.key, seed=seed)


def bits(spread: Spread) -> bytes:
    return b"".join(
        np.float64(x.square).tobytes() + b"".join(b.tobytes() for b in x.blocks) + x.zero.tobytes()
        for x in spread.tensors.values()
    )


@pytest.fixture(scope="module")
def case() -> Any:
    return gradients.perceptron()


@pytest.fixture(scope="module")
def reference(case: Any) -> dict[Any, np.ndarray]:
    program = read_refined(case.stored, batch=20)
    outputs = jax.jit(lambda *inputs: program(*inputs))(case.state, case.pieces[0], case.key)
    return {path: np.asarray(x, np.float64) for path, x in leaves_of(outputs).items()}


@pytest.fixture(scope="module", params=["mca", "jvp"])
def estimator(request: pytest.FixtureRequest, case: Any) -> SpreadEstimator:
    return SpreadEstimator(case.stored, F32, method=request.param, samples=8)


def test_same_seed_gives_the_same_bits_and_another_seed_others(
    estimator: SpreadEstimator, case: Any
) -> None:
    first, again, other = (bits(estimate(estimator, case, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_many_steps_and_seeds_compile_once(estimator: SpreadEstimator, case: Any) -> None:
    for seed in range(3):
        later = {**case.state, "step": np.uint32(seed)}
        estimator.estimate(later, case.pieces, case.key, seed=seed)
    assert estimator.compilations == 1


def test_blocks_add_up_to_the_tensor(estimator: SpreadEstimator, case: Any) -> None:
    found = estimate(estimator, case)
    for path, tensor in found.tensors.items():
        assert tuple(x.shape for x in tensor.blocks) == block_shapes(tensor.zero.shape), path
        for family in tensor.blocks:
            assert family.dtype == np.float64
            assert math.isclose(family.sum(), tensor.square, rel_tol=1e-4)


def test_spread_is_some_roundoffs_of_the_gradient(
    estimator: SpreadEstimator, case: Any, reference: Any
) -> None:
    found = estimate(estimator, case).tensors
    for path in (FIRST, BIAS, SECOND):
        ratio = found[path].square ** 0.5 / np.linalg.norm(reference[path])
        assert 0.3 * U < ratio < 30 * U


def test_zero_rows_and_columns_stay_exactly_zero(estimator: SpreadEstimator, case: Any) -> None:
    found = estimate(estimator, case).tensors
    dead = np.zeros((6, 12), bool)
    dead[-1, :], dead[:, 4] = True, True
    assert np.array_equal(found[FIRST].zero, dead)
    rows, columns = found[FIRST].blocks
    assert rows[-1] == 0 and columns[4] == 0
    assert np.all(rows[:-1] > 0) and np.all(np.delete(columns, 4) > 0)
    assert found[SECOND].zero[4].all() and found[BIAS].zero[4]


def test_structural_zeros_are_those_of_dead_inputs_and_units(
    estimator: SpreadEstimator, case: Any
) -> None:
    zero = estimator.structural_zeros(case.state, case.pieces, case.key, seed=4)
    assert set(zero) == {FIRST, BIAS, SECOND}
    dead = np.zeros((6, 12), bool)
    dead[-1, :], dead[:, 4] = True, True
    assert np.array_equal(zero[FIRST], dead)
    assert np.array_equal(zero[SECOND].all(1), dead[0])


def test_unit_that_is_off_by_little_is_no_structural_zero(estimator: SpreadEstimator) -> None:
    near = gradients.perceptron()
    parameters = {**near.state["parameters"], "bias": np.full(12, -3.0, np.float32)}
    parameters["first"] = np.full_like(parameters["first"], 0.5)
    x = np.full((20, gradients.FEATURES), 0.95, np.float32)
    # 6 * 0.5 * 0.95 - 3 is below zero, and above it where a weight is a little larger.
    piece = {**near.pieces[0], "x": x}
    state = {**near.state, "parameters": parameters}
    assert estimator.estimate(state, [piece], near.key, seed=1).tensors[SECOND].zero.all()
    zero = estimator.structural_zeros(state, [piece], near.key, seed=4)
    assert zero[SECOND].mean() < 0.5


def test_noise_and_derivatives_agree_within_a_factor(case: Any) -> None:
    mca, jvp = (
        estimate(SpreadEstimator(case.stored, F32, method=m, samples=16), case).tensors
        for m in ("mca", "jvp")
    )
    for path in (FIRST, BIAS, SECOND):
        assert 0.5 < (mca[path].square / jvp[path].square) ** 0.5 < 2


def test_variance_lies_above_derivatives_by_what_cancels(case: Any) -> None:
    program = read_refined(case.stored, batch=20)
    inputs = (case.state, case.pieces[0], case.key)
    _, variances = jax.jit(
        lambda *given: roundoff_variance(lambda *x: program(*x), *given, rules=F32)
    )(*inputs)
    found = leaves_of(variances)
    jvp = estimate(SpreadEstimator(case.stored, F32, method="jvp", samples=16), case).tensors
    for path in (FIRST, BIAS, SECOND):
        # Correlations are left out, and they cancel: logits less their maximum, here.
        assert 0.5 < (float(found[path].sum()) / jvp[path].square) ** 0.5 < 20
    assert np.array_equal(np.asarray(found[FIRST]) == 0, jvp[FIRST].zero)


def test_sum_of_products_has_the_spread_of_independent_roundings() -> None:
    # The gradient of w.x summed over the batch is the sum of weight times input over n examples:
    # the weights rounded once, each term as a summand of a chain, and the sum once.
    parameters = {"w": np.ones(gradients.FEATURES, np.float32)}
    linear = gradients.case(lambda w, x, uniform: x @ w["w"], parameters, batch=400)
    x = linear.pieces[0]["x"].astype(np.float64)
    terms = 1 + chained(400) ** 2
    expected = U * np.sqrt(terms * (x**2).sum(0) + x.sum(0) ** 2)
    estimator = SpreadEstimator(linear.stored, F32, method="jvp", samples=32)
    found = estimate(estimator, linear).tensors["gradient", "w"]
    assert np.isclose(found.square**0.5, np.linalg.norm(expected), rtol=0.2)
    assert found.zero[-1] and not found.zero[:-1].any()


def test_pieces_are_summed_and_rounded_apart(case: Any) -> None:
    whole = estimate(SpreadEstimator(case.stored, F32, samples=8), case).tensors
    cut = gradients.perceptron(pieces=4)
    estimator = SpreadEstimator(cut.stored, F32, samples=8)
    parts = estimate(estimator, cut).tensors
    assert estimator.compilations == 1
    for path in (FIRST, BIAS, SECOND):
        assert 0.4 < (parts[path].square / whole[path].square) ** 0.5 < 2.5
    assert np.array_equal(parts[FIRST].zero, whole[FIRST].zero)


def test_not_a_number_in_the_gradient_is_not_hidden(estimator: SpreadEstimator, case: Any) -> None:
    spoilt = {**case.state["parameters"], "second": np.full((12, 3), np.nan, np.float32)}
    found = estimator.estimate(
        {**case.state, "parameters": spoilt}, case.pieces, case.key, seed=1
    ).tensors[SECOND]
    assert math.isnan(found.square)
    assert not found.zero.any()


def test_noise_flips_no_mask_that_every_executor_draws_alike() -> None:
    # Uniform numbers are exact: `uniform < limit` is the same everywhere, also at the limit.
    parameters = {"w": np.ones(gradients.FEATURES, np.float32)}
    key = jax.random.key(0, impl="threefry2x32")
    drawn = np.asarray(jax.random.uniform(key, (20, gradients.FEATURES)))
    limit = float(drawn[0, 0])

    def loss(w: Any, x: Any, uniform: Any) -> Any:
        return jnp.where(uniform <= limit, 2.0, 0.0) @ w["w"]

    masked = gradients.case(loss, parameters)
    found = estimate(SpreadEstimator(masked.stored, F32, samples=16), masked)
    assert found.tensors["gradient", "w"].square ** 0.5 < 1e-4


def test_operator_whose_derivative_is_silently_zero_is_refused_by_name() -> None:
    parameters = {"w": np.ones(gradients.FEATURES, np.float32)}
    stepped = gradients.case(
        lambda w, x, uniform: jnp.floor(3 * (x @ w["w"])) * (x @ w["w"]), parameters
    )
    with pytest.raises(ProgramError, match="floor"):
        estimate(SpreadEstimator(stepped.stored, F32, method="jvp", samples=1), stepped)
    seen = estimate(SpreadEstimator(stepped.stored, F32, samples=2), stepped)
    assert seen.tensors["gradient", "w"].square > 0


def test_class_with_coarser_products_has_a_wider_spread(case: Any) -> None:
    fine, coarse = (
        estimate(SpreadEstimator(case.stored, CLASSES[name], samples=4), case).tensors[FIRST]
        for name in ("f32", "tf32")
    )
    assert 100 < (coarse.square / fine.square) ** 0.5 < 1e5


def test_small_blocks_take_more_derivatives(case: Any) -> None:
    assert usual_samples(case.stored.signature, "jvp") == 8
    assert usual_samples(case.stored.signature, "mca") == 6
    wide = gradients.case(
        lambda w, x, uniform: (x @ w["w"]).sum(-1), {"w": np.ones((6, 8), np.float32)}
    )
    assert usual_samples(wide.stored.signature, "jvp") == 8
