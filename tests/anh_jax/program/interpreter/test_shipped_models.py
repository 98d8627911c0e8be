import jax
import numpy as np
import pytest

from anh_jax.program.interpret import read_refined, read_stored
from anh_jax.program.programs import NAMES
from anh_jax.program.tree import leaves_of, path_text

# Drawing parameters takes longest to compile, and is the same operators in each model.
SHIPPED = [
    pytest.param(model, name, marks=[pytest.mark.full] if name == "init" and model != "mlp" else [])
    for model in ("mlp", "vit", "lm")
    for name in NAMES
]


def arrays(tree):
    def plain(value):
        typed = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(value) if typed else value)

    return {path_text(path): plain(value) for path, value in leaves_of(tree).items()}


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_the_refined_form_under_jit_gives_the_compiled_programs_bits(cases, model, name):
    case = cases(model)[name]
    program = read_refined(case.stored, batch=case.batch)
    found, expected = arrays(jax.jit(program)(*case.arguments)), arrays(case.compiled())
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert found[path].dtype == value.dtype
        assert found[path].tobytes() == value.tobytes(), path


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_the_stored_form_equals_the_compiled_program_within_rounding(cases, model, name):
    case = cases(model)[name]
    found = arrays(jax.jit(read_stored(case.stored))(*case.arguments))
    for path, value in arrays(case.compiled()).items():
        if value.dtype == np.float32:
            distance = np.linalg.norm(found[path] - value)
            assert distance <= 2e-6 * np.linalg.norm(value), path
        else:
            np.testing.assert_array_equal(found[path], value)
