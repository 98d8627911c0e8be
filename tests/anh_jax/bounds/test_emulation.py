"""An emulated class rounds the operands of products, and nothing else."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.bounds.emulation import emulated_gradient, emulation
from anh_jax.errors import ProgramError
from anh_jax.program.interpret import read_stored
from anh_jax.program.load import load_program
from anh_jax.program.tree import leaves_of
from anh_jax.training.mesh import make_mesh
from attest.numerics_class import CLASSES
from tests.anh_jax.bounds import gradients
from tests.anh_jax.program.interpreter.families import exported
from tests.anh_jax.program.interpreter.symbolic import SYMBOLIC


@pytest.fixture(scope="module")
def case() -> Any:
    return gradients.perceptron()


@pytest.fixture(scope="module")
def compiled(case: Any) -> dict[Any, np.ndarray]:
    program = load_program(case.stored, make_mesh(data=1, fsdp=1, tensor=1))
    return host(program(case.state, case.pieces[0], case.key))


def host(outputs: Any) -> dict[Any, np.ndarray]:
    return {path: np.asarray(x) for path, x in leaves_of(outputs).items()}


def distance(case: Any, compiled: Any, name: str) -> float:
    found = host(emulated_gradient(case.stored, name)(case.state, case.pieces[0], case.key))
    path = ("gradient", "first")
    return float(np.linalg.norm(found[path] - compiled[path]) / np.linalg.norm(compiled[path]))


def test_f32_emulated_is_the_compiled_program(case: Any, compiled: Any) -> None:
    assert distance(case, compiled, "f32") < 1e-6


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("bf16x3", 1e-7, 2.0**-13),
        ("tf32", 2.0**-14, 2.0**-8),
        ("bf16_f32acc", 2.0**-11, 2.0**-5),
        ("bf16", 2.0**-11, 2.0**-4),
    ],
)
def test_distance_is_that_of_the_class(
    case: Any, compiled: Any, name: str, low: float, high: float
) -> None:
    assert low < distance(case, compiled, name) < high


def product(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what a class's arithmetic makes of one exact product in float64."""

    def exact(*operands: Any) -> tuple[Any]:
        first, second = (np.asarray(o, np.float64) for o in operands)
        return (jnp.asarray(first * second, jnp.float32),)

    (found,) = emulation(name).arithmetic((jnp.asarray(x), jnp.asarray(y)), exact)
    return np.asarray(found, np.float64)


@pytest.mark.parametrize(
    ("name", "roundoff"), [("tf32", 2.0**-11), ("bf16_f32acc", 2.0**-8), ("bf16x3", 2.0**-16)]
)
def test_operands_are_rounded_to_the_digits_of_the_class(name: str, roundoff: float) -> None:
    random = np.random.default_rng(1)
    x, y = random.uniform(1, 2, (2, 4000)).astype(np.float32)
    error = np.abs(product(name, x, y) / (x.astype(np.float64) * y) - 1)
    assert roundoff / 4 < error.max() < 3 * roundoff
    assert CLASSES[name].roundoff.dot == roundoff


def test_a_convolution_padded_by_the_batch_size_is_emulated_too() -> None:
    stored, _, arguments = exported(*SYMBOLIC["convolution along rows"])
    plain, short = (
        np.asarray(read_stored(stored)(*arguments, around=emulation(name))["00"])
        for name in ("f32", "tf32")
    )
    error = np.abs(short - plain).max() / np.abs(plain).max()
    assert 2.0**-16 < error < 2.0**-8


def test_class_that_is_not_known_is_refused() -> None:
    with pytest.raises(ProgramError, match="'int8'"):
        emulation("int8")
