"""Every operator that is evaluated stands in a program of these tests, and has a name."""

import functools

import jax
import pytest

from anh_jax.program.interpret import read_refined, read_stored
from anh_jax.program.interpreter.naming import named_operation
from anh_jax.program.interpreter.operations import COMPOSITE
from anh_jax.program.interpreter.reading import all_operations
from anh_jax.program.interpreter.rules import RULES
from tests.anh_jax.program.interpreter.families import FAMILIES, batch_of, whole
from tests.anh_jax.program.interpreter.written import WRITTEN

PROGRAMS = [*FAMILIES, *WRITTEN]
# Newer jax writes the first otherwise on each platform, older jax writes out the second. One of
# them is missing here: the tests run under both.
OF_ONE_JAX = {"chlo.asin", "chlo.erfc"}


@functools.cache
def forms(name):
    """Return a test program's stored form, its refined form, and arguments."""
    if name in FAMILIES:
        stored, _, arguments = whole(name)
    else:
        stored, arguments = WRITTEN[name].stored(), WRITTEN[name].arguments
    return (read_stored(stored), read_refined(stored, batch=batch_of(stored))), arguments


def operators(name):
    found = set()
    for form in forms(name)[0]:
        for _, operation in all_operations(form.program):
            unknown = operation.is_composite and operation.name not in RULES.composites
            found.add(COMPOSITE if unknown else operation.name)
    return found


def test_every_operator_that_is_evaluated_stands_in_a_program_of_these_tests():
    tested = set().union(*(operators(name) for name in PROGRAMS))
    known = {*RULES.operators, *RULES.composites, *RULES.structures}
    assert tested <= known
    missing = known - tested
    assert missing < OF_ONE_JAX, f"no test program holds {sorted(missing - OF_ONE_JAX)}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_hook_is_shown_and_what_is_recorded_has_the_name_of_its_operator(name):
    programs, arguments = forms(name)
    for program in programs:
        seen = {}

        def around(visit, inputs, default, seen=seen):
            seen[visit.name] = visit.operation
            return default(*inputs)

        def recorded(*inputs, program=program, around=around):
            return program.record(*inputs, around=around)

        names = jax.eval_shape(recorded, *arguments).names
        assert len(set(names)) == len(names) > 0
        for told, operation in seen.items():
            assert named_operation(program.program, told) is operation
        for told in names:
            # Loops and branches of unknown course are recorded by what they return.
            where = told.partition("#")[0]
            assert where in seen or named_operation(program.program, where).regions
