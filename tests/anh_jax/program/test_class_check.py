"""Programs that do not round as their class says are refused by operator name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import pytest

from anh_jax.errors import ProgramError
from anh_jax.program.class_check import check_class
from anh_jax.program.export import export_program
from anh_jax.program.signature import StoredProgram, Tensor
from attest.numerics_class import CLASSES
from tests.anh_jax.program.interpreter.written import stored_from

BF16 = jnp.bfloat16
ARGUMENTS = {
    "x": Tensor(("b", 4, 4, 1), "float32"),
    "w": Tensor((4, 4), "float32"),
    "i": Tensor(("b",), "int32"),
}


def exported(function: Callable[..., Any], name: str = "bf16") -> StoredProgram:
    def program(x, w, i):
        return {"y": function(x, w, i)}

    return export_program("gradient", program, ARGUMENTS, rules=CLASSES[name])


def bias_gradient(x, w, i):
    def loss(bias):
        kept = x.astype(BF16) + bias.astype(BF16)[None, None, :, None]
        return jnp.sum(kept.astype(jnp.float32))

    return jax.grad(loss)(w[0])


def embedding_gradient(x, w, i):
    def loss(table):
        rows = jnp.take(table.astype(BF16), i, axis=0, mode="clip")
        return jnp.sum(rows.astype(jnp.float32))

    return jax.grad(loss)(w)


def max_pool(x, w, i):
    pooled = jax.lax.reduce_window(
        x.astype(BF16), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return pooled.astype(jnp.float32)


def best(x, w, i):
    return jnp.argmax(w.astype(BF16), axis=1).astype(jnp.float32)


def ranked(x, w, i):
    return jnp.sort(w.astype(BF16), axis=1).astype(jnp.float32)


REFUSED = {
    "bias": (bias_gradient, r"operator stablehlo\.reduce accumulates in bf16"),
    "embedding": (embedding_gradient, r"operator stablehlo\.scatter accumulates in bf16"),
    "max-pool": (max_pool, r"operator stablehlo\.reduce_window chooses by comparing bf16"),
    "argmax": (best, r"operator stablehlo\.reduce chooses by comparing bf16"),
    "sort": (ranked, r"operator stablehlo\.sort chooses by comparing bf16"),
}


@pytest.mark.parametrize(("function", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bf16_program_that_sums_or_chooses_in_bf16_is_refused_by_operator(
    function: Callable[..., Any], words: str
) -> None:
    with pytest.raises(ProgramError, match=words):
        check_class({"gradient": exported(function)}, CLASSES["bf16"])


def test_a_bf16_product_that_was_stored_with_a_bf16_result_is_refused() -> None:
    def narrow(x, w, i):
        return (w.astype(BF16) @ w.astype(BF16)).astype(jnp.float32)

    foreign = exported(narrow, "f32")
    with pytest.raises(ProgramError, match=r"stablehlo\.dot_general accumulates in bf16"):
        check_class({"gradient": foreign}, CLASSES["bf16"])


def test_casting_after_the_gather_and_the_broadcast_is_accepted() -> None:
    def wide(x, w, i):
        def loss(w):
            rows = jnp.take(w, i, axis=0, mode="clip").astype(BF16)
            kept = (rows.astype(jnp.float32) + w[0][None]).astype(BF16)
            return jnp.sum(kept.astype(jnp.float32))

        return jax.grad(loss)(w)

    check_class({"gradient": exported(wide)}, CLASSES["bf16"])


def test_bfloat16_activations_are_refused_in_every_class_but_bf16() -> None:
    def kept(x, w, i):
        return w.astype(BF16).astype(jnp.float32) + 1.0

    check_class({"gradient": exported(kept)}, CLASSES["bf16"])
    for name in ("f32", "tf32", "bf16x3", "bf16_f32acc"):
        with pytest.raises(ProgramError, match=rf"stablehlo\.convert gives bf16 in class {name}"):
            check_class({"gradient": exported(kept, name)}, CLASSES[name])


def test_an_update_may_not_round_to_bfloat16_even_in_class_bf16() -> None:
    def update(x, w, i):
        return {"y": w.astype(BF16).astype(jnp.float32)}

    program = export_program("update", update, ARGUMENTS)
    with pytest.raises(ProgramError, match=r"program update: .* gives bf16"):
        check_class({"update": program}, CLASSES["bf16"])


def test_float16_is_refused_in_every_class() -> None:
    def half(x, w, i):
        return w.astype(jnp.float16).astype(jnp.float32)

    with pytest.raises(ProgramError, match="gives f16 in class bf16"):
        check_class({"gradient": exported(half)}, CLASSES["bf16"])


def test_parameters_without_a_float32_master_are_refused() -> None:
    arguments = {"state": {"parameters": {"w": Tensor((4,), "bfloat16")}}}
    program = export_program(
        "gradient", lambda state: {"y": state["parameters"]["w"].astype(jnp.float32)}, arguments
    )
    with pytest.raises(ProgramError, match=r"state/parameters/w is bfloat16; .*need float32"):
        check_class({"gradient": program}, CLASSES["bf16"])


@pytest.mark.parametrize("name", ["tf32", "bf16x3"])
def test_a_convolution_under_the_name_of_a_class_without_its_form_is_refused(name: str) -> None:
    def convolution(x, w, i):
        return jax.lax.conv(x, w.reshape(4, 4, 1, 1), (1, 1), "SAME", precision="default")

    def program(x, w, i):
        return {"y": convolution(x, w, i)}

    foreign = export_program("gradient", program, ARGUMENTS, precision="default")
    with pytest.raises(ProgramError, match=rf"stablehlo\.convolution has no form in class {name}"):
        check_class({"gradient": foreign}, CLASSES[name])


def test_a_product_that_names_no_class_is_refused_in_every_class() -> None:
    def ragged(x, w, i):
        return jax.lax.ragged_dot(w, jnp.stack([w, w]), jnp.array([1, 3], jnp.int32))

    for name, rules in CLASSES.items():
        with pytest.raises(
            ProgramError, match=r"composite chlo\.ragged_dot multiplies and names no"
        ):
            check_class({"gradient": exported(ragged, name)}, rules)


def test_the_older_form_of_a_product_is_refused() -> None:
    body = "%s = stablehlo.dot %x, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<f32>"
    made = stored_from(
        f"{body}\n%y = stablehlo.broadcast_in_dim %s, dims = [] : (tensor<f32>) -> tensor<4xf32>"
    )
    gradient = StoredProgram(
        made.artifact, msgspec.structs.replace(made.signature, name="gradient")
    )
    with pytest.raises(ProgramError, match=r"operator stablehlo\.dot multiplies and names no"):
        check_class({"gradient": gradient}, CLASSES["f32"])


@pytest.mark.parametrize("name", CLASSES)
def test_a_program_of_one_class_is_refused_under_the_name_of_another(name: str) -> None:
    program = exported(lambda x, w, i: w @ w, name)
    check_class({"gradient": program}, CLASSES[name])
    alike = {"bf16", "bf16_f32acc"}  # A product alone is the same in both.
    for other in set(CLASSES) - {name} - (alike if name in alike else set()):
        with pytest.raises(ProgramError, match=r"stablehlo\.(dot_general|convert)"):
            check_class({"gradient": program}, CLASSES[other])
