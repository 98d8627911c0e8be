"""Each operator family against the source it was exported from."""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.interpret import read_refined, read_stored
from anh_jax.program.signature import Tensor
from tests.anh_jax.program.interpreter import battery

ALL = [(family, name) for family, members in battery.FAMILIES.items() for name in members]
# Random bits take seconds to evaluate one by one, for their operators compile one by one.
SLOW = ("random",)
NOT_SMOOTH = ("rounded", "sorting", "random")


def exported(function, arguments):
    names = [f"a{i}" for i in range(len(arguments))]
    source = listed(function, names)
    tensors = {n: Tensor(x.shape, x.dtype.name) for n, x in zip(names, arguments, strict=True)}
    with loose():
        try:
            return export_program("f", source, tensors), source, arguments
        except ProgramError as error:
            if "lower to different modules" not in str(error):
                raise
    pytest.skip("this jax writes it in another form for each platform: no stored program")


def listed(function, names):
    """Return the function with named arguments and a dict of its results."""

    def results(*inputs):
        return {f"{i:02d}": x for i, x in enumerate(jax.tree.leaves(function(*inputs)))}

    kind = inspect.Parameter.POSITIONAL_ONLY
    parameters = [inspect.Parameter(name, kind) for name in names]
    results.__signature__ = inspect.Signature(parameters)
    return results


@contextlib.contextmanager
def loose():
    """Let the battery promote dtypes and ranks, as a user's model may."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def assert_near(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        result, wanted = np.asarray(found[key]), np.asarray(value)
        assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape), key
        if jnp.issubdtype(wanted.dtype, jnp.floating):
            result, wanted = result.astype(np.float32), wanted.astype(np.float32)
            np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance, err_msg=key)
        else:
            np.testing.assert_array_equal(result, wanted, err_msg=key)


def whole(family):
    """Return all members of a family as one function: one program, one compilation."""
    members = battery.FAMILIES[family].items()
    kept = {name: member for name, member in members if name not in battery.PER_PLATFORM}
    arguments, functions = [], []
    for name, (function, inputs) in kept.items():
        functions.append((name, function, len(arguments), len(arguments) + len(inputs)))
        arguments.extend(inputs)

    def function(*inputs):
        return {name: f(*inputs[start:stop]) for name, f, start, stop in functions}

    return function, tuple(arguments)


@pytest.mark.parametrize("family", battery.FAMILIES)
def test_a_family_of_operators_computes_and_differentiates_as_its_source(family):
    function, arguments = whole(family)
    stored, source, _ = exported(function, arguments)
    program = read_refined(stored, batch=None)
    if family in NOT_SMOOTH:
        with loose():
            expected = jax.jit(source)(*arguments)
        assert_near(jax.jit(program)(*arguments), expected, 2e-6)
        return
    tangents = tuple(tangent_like(x, i) for i, x in enumerate(arguments))
    with loose():
        expected, slopes = jax.jit(lambda *t: jax.jvp(source, arguments, t))(*tangents)
    found, tangent = jax.jit(lambda *t: jax.jvp(program, arguments, t))(*tangents)
    # A compiler may keep more digits of a bfloat16 than the operators one by one do.
    assert_near(found, expected, 8e-3 if family in ("elementwise", "products") else 2e-6)
    assert_near_slopes(tangent, slopes)


@pytest.mark.full
@pytest.mark.parametrize(("family", "name"), ALL)
def test_an_operator_computes_what_its_source_does(family, name):
    stored, source, arguments = exported(*battery.FAMILIES[family][name])
    with loose():
        expected = jax.jit(source)(*arguments)
    # A compiler may keep more digits of a bfloat16 than the operators one by one do.
    tolerance = 8e-3 if name == "halves" else 2e-6
    assert_near(jax.jit(read_refined(stored, batch=None))(*arguments), expected, tolerance)
    if family not in SLOW:
        assert_near(read_stored(stored)(*arguments), expected, tolerance)


SMOOTH = [
    (family, name)
    for family in ("elementwise", "movement", "products", "indexing", "reductions", "control")
    for name, (_, arguments) in battery.FAMILIES[family].items()
    if name not in ("until", "halves")
]


@pytest.mark.full
@pytest.mark.parametrize(("family", "name"), SMOOTH)
def test_an_operators_derivative_is_its_sources(family, name):
    stored, source, arguments = exported(*battery.FAMILIES[family][name])
    tangents = tuple(tangent_like(x, i) for i, x in enumerate(arguments))
    with loose():
        expected = jax.jit(lambda *t: jax.jvp(source, arguments, t)[1])(*tangents)
    program = read_refined(stored, batch=None)
    found = jax.jit(lambda *t: jax.jvp(program, arguments, t)[1])(*tangents)
    assert_near_slopes(found, expected)


def assert_near_slopes(found, expected):
    for key, value in expected.items():
        if value.dtype != jax.dtypes.float0:
            scale = np.abs(value).max() + 1e-6
            np.testing.assert_allclose(found[key] / scale, value / scale, atol=5e-6, err_msg=key)


def tangent_like(value, seed):
    if value.dtype != np.float32:
        return np.zeros(value.shape, jax.dtypes.float0)
    return np.random.default_rng(seed + 20).normal(size=value.shape).astype(np.float32)


@pytest.mark.parametrize(("family", "name"), ALL)
@pytest.mark.full
def test_an_operator_can_be_mapped_over(family, name):
    stored, _, arguments = exported(*battery.FAMILIES[family][name])
    program = read_refined(stored, batch=None)
    twice = tuple(np.stack([x, x[..., ::-1] if x.ndim else x]) for x in arguments)
    mapped = jax.jit(jax.vmap(program))(*twice)
    for row in range(2):
        alone = jax.jit(program)(*(x[row] for x in twice))
        assert_near({k: v[row] for k, v in mapped.items()}, alone, 2e-5)
