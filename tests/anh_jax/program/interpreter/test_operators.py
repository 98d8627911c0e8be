"""Each operator family against the compiled program, and against the source it came from."""

import jax
import numpy as np
import pytest

from anh_jax.program.interpret import read_refined, read_stored
from tests.anh_jax.program.interpreter.families import (
    FAMILIES,
    assert_near,
    assert_near_slopes,
    batch_of,
    compiled,
    exported,
    loose,
    tangent_like,
    whole,
)

ALL = [(family, name) for family, members in FAMILIES.items() for name in members]
# Random bits take seconds to evaluate one by one, for their operators compile one by one.
SLOW = ("random",)
NOT_SMOOTH = ("rounded", "sorting", "random")
SMOOTH = [
    (family, name)
    for family, name in ALL
    if family not in NOT_SMOOTH and name not in ("until", "halves")
]


def tolerance_of(name):
    # A compiler may keep more digits of a bfloat16 than the operators one by one do.
    return 8e-3 if name == "halves" else 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_refined_form_under_jit_has_the_bits_of_the_compiled_program(family):
    stored, _, arguments = whole(family)
    expected = compiled(stored, arguments)
    found = jax.jit(read_refined(stored, batch=batch_of(stored)))(*arguments)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes(), key


@pytest.mark.parametrize("family", [x for x in FAMILIES if x not in NOT_SMOOTH])
def test_a_family_of_operators_computes_and_differentiates_as_its_source(family):
    stored, source, arguments = whole(family)
    program = read_refined(stored, batch=batch_of(stored))
    tangents = tuple(tangent_like(x, i) for i, x in enumerate(arguments))
    with loose():
        expected, slopes = jax.jit(lambda *t: jax.jvp(source, arguments, t))(*tangents)
    found, tangent = jax.jit(lambda *t: jax.jvp(program, arguments, t))(*tangents)
    assert_near(found, expected, 8e-3 if family in ("elementwise", "products") else 2e-6)
    assert_near_slopes(tangent, slopes)


@pytest.mark.full
@pytest.mark.parametrize(("family", "name"), ALL)
def test_an_operator_computes_what_its_source_does(family, name):
    stored, source, arguments = exported(*FAMILIES[family][name])
    with loose():
        expected = jax.jit(source)(*arguments)
    program = read_refined(stored, batch=batch_of(stored))
    assert_near(jax.jit(program)(*arguments), expected, tolerance_of(name))
    if family not in SLOW:
        assert_near(read_stored(stored)(*arguments), expected, tolerance_of(name))


@pytest.mark.full
@pytest.mark.parametrize(("family", "name"), SMOOTH)
def test_an_operators_derivative_is_its_sources(family, name):
    stored, source, arguments = exported(*FAMILIES[family][name])
    tangents = tuple(tangent_like(x, i) for i, x in enumerate(arguments))
    with loose():
        expected = jax.jit(lambda *t: jax.jvp(source, arguments, t)[1])(*tangents)
    program = read_refined(stored, batch=batch_of(stored))
    found = jax.jit(lambda *t: jax.jvp(program, arguments, t)[1])(*tangents)
    assert_near_slopes(found, expected)


@pytest.mark.parametrize(("family", "name"), ALL)
@pytest.mark.full
def test_an_operator_can_be_mapped_over(family, name):
    stored, _, arguments = exported(*FAMILIES[family][name])
    program = read_refined(stored, batch=batch_of(stored))
    twice = tuple(np.stack([x, x[..., ::-1] if x.ndim else x]) for x in arguments)
    mapped = jax.jit(jax.vmap(program))(*twice)
    for row in range(2):
        alone = jax.jit(program)(*(x[row] for x in twice))
        assert_near({k: v[row] for k, v in mapped.items()}, alone, 2e-5)
