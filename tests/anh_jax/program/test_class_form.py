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


def convolution(x, k):
    return {"y": jax.lax.conv(x, k, (1, 1), "SAME")}


IMAGES = {"x": Tensor(("b", 1, 8, 8), "float32"), "k": Tensor((2, 1, 3, 3), "float32")}


def test_a_convolution_of_a_bf16_class_gets_rounded_operands() -> None:
    program = stored(convolution, "bf16_f32acc", IMAGES)
    (text,) = products(program)
    assert "DEFAULT" in text or "precision" not in text
    check_class({"gradient": program}, CLASSES["bf16_f32acc"])


@pytest.mark.parametrize("name", ["tf32", "bf16x3"])
def test_a_convolution_is_refused_by_name_where_stablehlo_cannot_write_its_class(name: str) -> None:
    words = rf"program gradient: operator stablehlo\.convolution has no form in class {name}; write"
    with pytest.raises(ProgramError, match=words):
        stored(convolution, name, IMAGES)


@pytest.mark.parametrize("name", CLASSES)
def test_shifted_slices_and_a_product_are_a_convolution_of_every_class(name: str) -> None:
    def sliced(x, k):
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        shifts = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        patches = jnp.stack(shifts, axis=2)  # batch, channel, shift, row, column
        return {"y": jnp.einsum("bcsij,ocs->boij", patches, k.reshape(2, 1, 9))}

    program = stored(sliced, name, IMAGES)
    check_class({"gradient": program}, CLASSES[name])
    if name in ("f32", "bf16_f32acc"):
        x = RANDOM.normal(size=(3, 1, 8, 8)).astype(np.float32)
        k = RANDOM.normal(size=(2, 1, 3, 3)).astype(np.float32)
        found, expected = (
            np.asarray(load_program(made, make_mesh())(x, k)["y"])
            for made in (program, stored(convolution, name, IMAGES))
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_convolution_padded_by_the_batch_size_is_written_in_its_class() -> None:
    def along(x, k):
        return {"y": jax.lax.conv(x.T[None], k, (2,), "SAME").sum((0, 2))}

    arguments = {"x": Tensor(("b", 4), "float32"), "k": Tensor((3, 4, 4), "float32")}
    for name in ("f32", "bf16_f32acc"):
        check_class({"gradient": stored(along, name, arguments)}, CLASSES[name])
    with pytest.raises(ProgramError, match=r"stablehlo\.dynamic_conv has no form in class tf32"):
        stored(along, "tf32", arguments)
    with pytest.raises(ProgramError, match=r"stablehlo\.dynamic_conv has algorithm none"):
        check_class({"gradient": loose(along, arguments)}, CLASSES["f32"])


def loose(function, arguments) -> StoredProgram:
    """Return a program that leaves precision to whoever runs it."""
    return export_program("gradient", function, arguments, precision="default")
