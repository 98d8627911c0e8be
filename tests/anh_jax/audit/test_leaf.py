"""Every kind of operator is judged: honest results are within the bound, a larger error is not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from anh_jax.audit.leaf import base_name, check_operator
from anh_jax.bounds.rounding import is_float
from anh_jax.program.export import export_program
from anh_jax.program.interpret import read_stored
from anh_jax.program.signature import Tensor
from attest.numerics_class import CLASSES

F32 = CLASSES["f32"]


def many(inputs: Any) -> Any:
    """Use a convolution, windows, scatters, sums and functions, forwards and backwards."""
    image, kernel, table, places = (inputs[n] for n in ("image", "kernel", "table", "places"))

    def scalar(image, kernel, table):
        mixed = lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        # Forwards only: its derivative is another operator on other platforms; no contract has it.
        still = lax.stop_gradient(mixed)
        largest = lax.reduce_window(still, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        mean = lax.reduce_window(mixed, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID") / 4
        rows = table[places]
        smooth = jnp.sum(lax.erf(rows) * lax.logistic(rows) + lax.rsqrt(1 + rows * rows))
        short = (rows.astype(jnp.bfloat16) @ rows.astype(jnp.bfloat16).T).astype(jnp.float32)
        # A cumulative sum by name is another module on each platform, from jax 0.12 on.
        running = lax.associative_scan(jnp.add, rows, axis=0)
        tops, _ = lax.top_k(running, 2)
        return (
            jnp.sum(jnp.exp(-jnp.abs(mean)))
            + smooth
            + jnp.sum(short)
            + jnp.sum(jnp.sort(tops))
            + jnp.max(largest)
        )

    value, grads = jax.value_and_grad(scalar, argnums=(0, 1, 2))(image, kernel, table)
    return {"value": value, "image": grads[0], "kernel": grads[1], "table": grads[2]}


@pytest.fixture(scope="module")
def visited() -> list[Any]:
    """Return every operator of such a program with its operands and results on this device."""
    tensors = {
        "image": Tensor((2, 6, 6, 3), "float32"),
        "kernel": Tensor((3, 3, 3, 4), "float32"),
        "places": Tensor((9,), "int32"),
        "table": Tensor((5, 8), "float32"),
    }
    stored = export_program("many", many, {"inputs": tensors})
    program = read_stored(stored)
    rng = np.random.default_rng(3)
    inputs = {
        "image": rng.standard_normal((2, 6, 6, 3)).astype(np.float32),
        "kernel": rng.standard_normal((3, 3, 3, 4)).astype(np.float32),
        "places": np.array([0, 1, 4, 1, 1, 2, 0, 4, 1], np.int32),
        "table": rng.standard_normal((5, 8)).astype(np.float32),
    }
    found: list[Any] = []

    def hook(visit, operands, default):
        results = default(*operands)
        sides = [[np.asarray(x) for x in side] for side in (operands, results)]
        found.append((program.program, visit.operation, *sides))
        return results

    program(inputs, around=hook, loops="python")
    return found


def judge(program, operation, operands, results):
    return check_operator(program, operation, operands, results, rules=F32, backend="cpu")


def test_the_program_uses_every_kind_of_sum(visited) -> None:
    names = {base_name(operation) for _, operation, _, _ in visited}
    assert {"convolution", "dot_general", "reduce", "reduce_window", "scatter"} <= names
    assert {"convert", "gather", "sort", "top_k"} <= names


def test_honest_results_of_every_operator_are_within_the_bound(visited) -> None:
    for program, operation, operands, results in visited:
        found = judge(program, operation, operands, results)
        assert found is not None and found.accepted, (operation.name, found)


def test_larger_error_of_any_operator_is_outside_the_bound(visited) -> None:
    seen: set[str] = set()
    for program, operation, operands, results in visited:
        name = base_name(operation)
        if name in seen or not is_float(results[0].dtype) or not results[0].any():
            continue
        seen.add(name)
        wrong = results[0].copy()
        at = int(np.argmax(np.abs(wrong.astype(np.float32))))
        wrong.flat[at] = np.float32(wrong.flat[at]) * 1.02
        found = judge(program, operation, operands, [wrong, *results[1:]])
        assert not found.accepted and found.element == at, name
    assert len(seen) > 15


def test_results_of_another_shape_dtype_or_number_are_refused(visited) -> None:
    program, operation, operands, results = next(
        one for one in visited if base_name(one[1]) == "convolution"
    )
    for bad in ([results[0][:1]], [results[0].astype(np.float16)], [], [*results, *results]):
        assert not judge(program, operation, operands, bad).accepted
