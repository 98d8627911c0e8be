"""The battery as stored programs: by member, and each family as one program."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.signature import BATCH, Tensor
from anh_jax.training.mesh import make_mesh
from tests.anh_jax.program.interpreter import battery
from tests.anh_jax.program.interpreter.symbolic import ROWS, SYMBOLIC

FAMILIES = {**battery.FAMILIES, "symbolic": SYMBOLIC}


def exported(function, arguments):
    names = [f"a{i}" for i in range(len(arguments))]
    source = listed(function, names)
    tensors = {n: _tensor(x) for n, x in zip(names, arguments, strict=True)}
    with loose():
        try:
            return export_program("f", source, tensors), source, arguments
        except ProgramError as error:
            if "lower to different modules" not in str(error):
                raise
    pytest.skip("this jax writes it in another form for each platform: no stored program")


def _tensor(value):
    shape = tuple(BATCH if n == ROWS else n for n in value.shape)
    return Tensor(shape, value.dtype.name)


def batch_of(stored):
    """Return what to refine a program of the battery for."""
    return ROWS if any(BATCH in leaf.shape for leaf in stored.signature.inputs) else None


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


@functools.cache
def whole(family):
    """Return a family as one stored program, its source and arguments: one compilation."""
    members = FAMILIES[family].items()
    kept = {name: member for name, member in members if name not in battery.PER_PLATFORM}
    arguments, functions = [], []
    for name, (function, inputs) in kept.items():
        functions.append((name, function, len(arguments), len(arguments) + len(inputs)))
        arguments.extend(inputs)

    def function(*inputs):
        return {name: f(*inputs[start:stop]) for name, f, start, stop in functions}

    return exported(function, tuple(arguments))


def compiled(stored, arguments):
    """Return what the stored program itself gives."""
    return load_program(stored, make_mesh(data=1, fsdp=1, tensor=1))(*arguments)


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


def assert_near_slopes(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value.dtype != jax.dtypes.float0:
            scale = np.abs(value).max() + 1e-6
            np.testing.assert_allclose(found[key] / scale, value / scale, atol=5e-6, err_msg=key)


def tangent_like(value, seed):
    if value.dtype != np.float32:
        return np.zeros(value.shape, jax.dtypes.float0)
    return np.random.default_rng(seed + 20).normal(size=value.shape).astype(np.float32)
