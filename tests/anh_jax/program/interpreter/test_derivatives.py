import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.interpret import check_differentiable, read_refined, read_stored
from anh_jax.program.signature import Tensor

X = np.array([0.3, 1.7, -2.2], np.float32)
REFUSED = {
    "floor": (lambda x: x * jnp.floor(x), "stablehlo.floor"),
    "ceil": (lambda x: x * jnp.ceil(x), "stablehlo.ceil"),
    "round": (lambda x: x * jnp.round(x), "stablehlo.round_nearest_even"),
    "bits": (
        lambda x: jax.lax.bitcast_convert_type(
            jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000), jnp.float32
        ),
        "stablehlo.bitcast_convert",
    ),
    "integer": (lambda x: x * x.astype(jnp.int32).astype(jnp.float32), "stablehlo.convert"),
}


def stored(function):
    return export_program("f", lambda x: {"y": function(x)}, {"x": Tensor((3,), "float32")})


@pytest.mark.parametrize("name", REFUSED)
def test_a_derivative_that_would_silently_be_zero_is_refused_by_name(name):
    function, operator = REFUSED[name]
    program = read_stored(stored(function))
    np.testing.assert_array_equal(program(X)["y"], function(X))
    with pytest.raises(ProgramError, match=f"operator {operator} at main/.*silently be zero"):
        jax.jvp(program, (X,), (X,))
    with pytest.raises(ProgramError, match=operator):
        check_differentiable(program)


def test_what_only_rounds_values_without_a_tangent_is_differentiated():
    def function(x):
        return x * jnp.floor(jax.random.uniform(jax.random.key(0), (3,)) + 0.5)

    program = read_refined(stored(function), batch=None)
    check_differentiable(program)
    _, found = jax.jvp(program, (X,), (X,))
    _, expected = jax.jvp(function, (X,), (X,))
    np.testing.assert_array_equal(found["y"], expected)


def test_the_derivative_of_a_program_with_a_composite_is_jaxs_own():
    program = read_stored(stored(jax.nn.gelu))
    exact = read_stored(stored(lambda x: jax.nn.gelu(x, approximate=False)))
    for form, approximate in ((program, True), (exact, False)):
        check_differentiable(form)
        _, found = jax.jvp(form, (X,), (X,))
        _, expected = jax.jvp(lambda x, a=approximate: jax.nn.gelu(x, approximate=a), (X,), (X,))
        np.testing.assert_allclose(found["y"], expected, rtol=3e-6)


def test_a_composite_of_a_models_own_has_the_derivative_of_what_it_is_composed_of():
    wave = jax.lax.composite(lambda x: jnp.sin(x) * 2, name="my.wave")
    for program in (read_stored(stored(wave)), read_refined(stored(wave), batch=None)):
        check_differentiable(program)
        _, found = jax.jvp(program, (X,), (X,))
        np.testing.assert_allclose(found["y"], 2 * X * np.cos(X), rtol=2e-6)


@pytest.mark.parametrize("model", ["mlp", "vit", "lm"])
def test_every_shipped_gradient_can_be_differentiated(cases, model):
    case = cases(model)["gradient"]
    check_differentiable(read_stored(case.stored))


@pytest.mark.full
def test_a_models_tangent_is_the_source_models(lm_cases, lm_gradient):
    case = lm_cases["gradient"]
    program = read_refined(case.stored, batch=case.batch)
    state, examples, key = jax.tree.map(jnp.asarray, case.arguments)
    random = np.random.default_rng(9)
    direction = jax.tree.map(
        lambda x: random.normal(size=x.shape).astype(x.dtype), state["parameters"]
    )

    def along(function):
        def seen(parameters):
            return function({**state, "parameters": parameters}, examples, key)["gradient"]

        return jax.jit(lambda d: jax.jvp(seen, (state["parameters"],), (d,))[1])(direction)

    found, expected = along(program), along(lm_gradient.source.function)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - b) <= 5e-6 * np.linalg.norm(b)


def test_a_program_can_be_mapped_over_states(mlp_cases):
    case = mlp_cases["gradient"]
    program = read_refined(case.stored, batch=case.batch)
    state, examples, key = case.arguments
    stacked = jax.tree.map(lambda x: jnp.stack([x, x * 2]), state["parameters"])

    def seen(parameters):
        return program({**state, "parameters": parameters}, examples, key)["gradient"]

    mapped = jax.jit(jax.vmap(seen))(stacked)
    for row in range(2):
        alone = jax.jit(seen)(jax.tree.map(lambda x, r=row: x[r], stacked))
        for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
            assert np.linalg.norm(a[row] - b) <= 2e-6 * np.linalg.norm(b)
