"""Operations of matrix products, counted against their definitions."""

import jax
import jax.numpy as jnp
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.program.products import product_flops

extents = st.integers(0, 40)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@given(b=extents, m=extents, k=extents, n=extents)
def test_product_takes_two_operations_for_each_multiply_add(b: int, m: int, k: int, n: int) -> None:
    assert product_flops(jnp.matmul, floats(b, m, k), floats(k, n)) == 2 * b * m * k * n
    assert product_flops(jnp.matmul, floats(b, m, k), floats(b, k, n)) == 2 * b * m * k * n


def test_scan_counts_its_body_as_often_as_it_runs() -> None:
    def stack(x: jax.Array, layers: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carried, w: (carried @ w, None), x, layers)[0]

    assert product_flops(stack, floats(3, 8), floats(5, 8, 8)) == 5 * 2 * 3 * 8 * 8


def test_conditional_counts_its_dearest_branch() -> None:
    def either(which: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.cond(which, lambda y: y @ y, lambda y: y @ y @ y, x)

    which = jax.ShapeDtypeStruct((), jnp.bool_)
    assert product_flops(either, which, floats(4, 4)) == 2 * 2 * 4**3


def test_functions_inside_functions_are_counted() -> None:
    inner = jax.jit(jax.checkpoint(lambda x: x @ x))
    assert product_flops(lambda x: inner(x) @ x, floats(4, 4)) == 2 * 2 * 4**3


def test_gradient_of_a_product_costs_two_more() -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x @ w))

    both = product_flops(jax.grad(loss, argnums=(0, 1)), floats(8, 6), floats(5, 8))
    assert both == 3 * 2 * 5 * 8 * 6


def test_convolution_counts_each_output_over_its_window() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    flops = product_flops(convolve, floats(2, 10, 12, 3), floats(3, 5, 3, 7))
    assert flops == 2 * (2 * 8 * 8 * 7) * (3 * 5 * 3)


def test_elementwise_work_is_not_counted() -> None:
    assert product_flops(lambda x: jnp.sum(jnp.exp(x) * x), floats(9, 9)) == 0
