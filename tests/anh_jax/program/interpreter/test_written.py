"""Operators and forms of them that jax does not write, from programs by hand."""

import jax
import numpy as np
import pytest

from anh_jax.program.interpret import read_refined, read_stored
from tests.anh_jax.program.interpreter.families import (
    assert_near,
    assert_near_slopes,
    compiled,
    listed,
    tangent_like,
)
from tests.anh_jax.program.interpreter.written import WITHOUT_SLOPES, WRITTEN


def source_of(name):
    written = WRITTEN[name]
    return listed(written.source, [f"a{i}" for i in range(len(written.arguments))])


@pytest.mark.parametrize("name", WRITTEN)
def test_a_program_by_hand_computes_what_the_compiled_one_and_its_source_do(name):
    stored, arguments = WRITTEN[name].stored(), WRITTEN[name].arguments
    expected = compiled(stored, arguments)
    assert_near(expected, jax.jit(source_of(name))(*arguments), 2e-6)
    assert_near(read_stored(stored)(*arguments), expected, 2e-6)
    found = jax.jit(read_refined(stored, batch=None))(*arguments)
    if name == "reversed windows":
        # jax has no such convolution: a reversed kernel stands for it, which rounds otherwise.
        assert_near(found, expected, 2e-6)
    else:
        assert np.asarray(found["00"]).tobytes() == np.asarray(expected["00"]).tobytes()


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in WITHOUT_SLOPES])
def test_a_program_by_hand_has_the_derivative_of_its_source(name):
    stored, arguments = WRITTEN[name].stored(), WRITTEN[name].arguments
    tangents = tuple(tangent_like(x, i) for i, x in enumerate(arguments))
    expected = jax.jit(lambda *t: jax.jvp(source_of(name), arguments, t)[1])(*tangents)
    program = read_refined(stored, batch=None)
    found = jax.jit(lambda *t: jax.jvp(program, arguments, t)[1])(*tangents)
    assert_near_slopes(found, expected)
