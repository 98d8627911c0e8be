"""Stored programs round as their contract's numerics class says, for every model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.class_check import check_class
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.signature import StoredProgram, Tensor
from anh_jax.training.mesh import make_mesh
from attest.numerics_class import CLASSES

SIZE = 32
ARGUMENTS = {"x": Tensor(("b", SIZE), "float32"), "w": Tensor((SIZE, SIZE), "float32")}
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(SIZE, SIZE)).astype(np.float32)
W = RANDOM.normal(size=(SIZE, SIZE)).astype(np.float32)
PRODUCTS = re.compile(r"stablehlo\.(?:dot_general|convolution).*")


def product(x, w):
    return {"y": x @ w}


def loss_gradient(x, w):
    def loss(w):
        carried, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=2)
        return jnp.sum(carried)

    return {"w": jax.grad(loss)(w)}


def stored(function, name: str, arguments=ARGUMENTS) -> StoredProgram:
    return export_program("gradient", function, arguments, rules=CLASSES[name])


def products(program: StoredProgram) -> list[str]:
    with stablehlo.context():
        return PRODUCTS.findall(str(stablehlo.parse(program.artifact, where="test")))


def rounded(x: np.ndarray) -> np.ndarray:
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("tf32", "lhs_precision_type = tf32, rhs_precision_type = tf32, accumulation_type = f32"),
        ("bf16x3", "num_primitive_operations = 3"),
    ],
)
def test_every_product_forward_backward_and_in_loops_names_its_algorithm(
    name: str, algorithm: str
) -> None:
    found = products(stored(loss_gradient, name))
    assert len(found) >= 3
    assert all(algorithm in text and "HIGHEST" not in text for text in found)


def test_the_program_of_class_f32_asks_for_the_highest_precision_and_no_algorithm() -> None:
    found = products(stored(loss_gradient, "f32"))
    assert len(found) >= 3
    assert all("HIGHEST, HIGHEST" in text and "algorithm" not in text for text in found)


@pytest.mark.parametrize("name", ["bf16_f32acc", "bf16"])
def test_every_product_of_a_bf16_class_rounds_its_operands_and_adds_in_float32(name: str) -> None:
    program = stored(loss_gradient, name)
    found = products(program)
    assert len(found) >= 3
    assert all("lhs_precision_type = bf16" in x and "accumulation_type = f32" in x for x in found)
    with stablehlo.context():
        text = str(stablehlo.parse(program.artifact, where="test"))
    assert text.count("format = e8m7") == 2 * len(found)


def test_batched_products_of_a_bf16_class_run_on_this_backend() -> None:
    def attention(x, w):
        heads = x.reshape(-1, 4, 2, SIZE // 8)
        scores = jnp.einsum("bqhe,bkhe->bhqk", heads, heads)
        return {"y": jnp.einsum("bhqk,bkhe->bqhe", scores, heads)}

    run = load_program(stored(attention, "bf16"), make_mesh())
    assert np.isfinite(np.asarray(run(X, W)["y"])).all()


def test_a_bf16_product_has_the_value_of_rounded_operands_on_any_backend() -> None:
    run = load_program(stored(product, "bf16_f32acc"), make_mesh())
    found = np.asarray(run(X, W)["y"], np.float64)
    exact = X.astype(np.float64) @ W.astype(np.float64)
    expected = rounded(X).astype(np.float64) @ rounded(W).astype(np.float64)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= SIZE * 2.0**-24 * scale
    assert np.abs(found - exact).max() >= 2.0**-11 * scale


def test_a_product_asked_for_in_bfloat16_still_adds_in_float32_and_rounds_once() -> None:
    def narrow(x, w):
        y = x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)
        return {"y": y.astype(jnp.float32)}

    program = stored(narrow, "bf16")
    (text,) = products(program)
    assert text.endswith(f"-> tensor<?x{SIZE}xf32>")
    found = np.asarray(load_program(program, make_mesh())(X, W)["y"])
    wide = rounded(X).astype(np.float64) @ rounded(W).astype(np.float64)
    assert (np.abs(found - wide) <= 2.0**-8 * np.abs(wide) + 1e-5).all()


def test_a_convolution_gets_bf16_operands_and_is_refused_where_no_form_exists() -> None:
    def convolution(x, k):
        return {"y": jax.lax.conv(x, k, (1, 1), "SAME")}

    arguments = {"x": Tensor(("b", 1, 8, 8), "float32"), "k": Tensor((2, 1, 3, 3), "float32")}
    (text,) = products(stored(convolution, "bf16_f32acc", arguments))
    assert "DEFAULT" in text or "precision" not in text
    check_class({"gradient": stored(convolution, "bf16_f32acc", arguments)}, CLASSES["bf16_f32acc"])
    with pytest.raises(ProgramError, match=r"stablehlo\.convolution has no form in class tf32"):
        stored(convolution, "tf32", arguments)
