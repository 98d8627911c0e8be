"""Integer arithmetic on the host is the arithmetic of the program."""

import jax
import numpy as np
import pytest
from jax import lax

from anh_jax.program.interpreter.host import evaluate_on_host
from anh_jax.program.interpreter.operations import Operation, TensorType

OPERATORS = {
    "add": lax.add,
    "and": lax.bitwise_and,
    "divide": lax.div,
    "maximum": lax.max,
    "minimum": lax.min,
    "multiply": lax.mul,
    "or": lax.bitwise_or,
    "remainder": lax.rem,
    "subtract": lax.sub,
    "xor": lax.bitwise_xor,
}
SINGLE = {"abs": lax.abs, "negate": lax.neg, "not": lax.bitwise_not, "sign": lax.sign}
DTYPES = [
    *("int32", "uint64"),
    *(pytest.param(name, marks=[pytest.mark.full]) for name in ("int8", "uint32", "int64")),
]


def on_host(name, *inputs):
    kinds = tuple(TensorType(x.shape, x.dtype) for x in inputs)
    numbers = tuple(range(len(inputs)))
    operation = Operation(f"stablehlo.{name}", numbers, (9,), kinds, kinds[:1], {}, ())
    return evaluate_on_host(operation, inputs)


def edges(dtype):
    info = np.iinfo(dtype)
    numbers = [0, 1, 2, 7, info.max, info.min, info.max - 1]
    return np.array(numbers + ([-1, -7] if info.min < 0 else []), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_at_their_limits_are_what_the_device_computes(dtype):
    left, right = (x.reshape(-1) for x in np.meshgrid(edges(dtype), edges(dtype)))
    with jax.enable_x64(True):
        for begin in range(0, left.size, 64):
            pair = left[begin : begin + 64], right[begin : begin + 64]
            for name, function in OPERATORS.items():
                found = on_host(name, *pair)
                assert found is not None and found.dtype == dtype
                np.testing.assert_array_equal(found, function(*pair), err_msg=name)
        for name, function in SINGLE.items():
            if name not in ("abs", "sign") or dtype.startswith("int"):
                found = on_host(name, edges(dtype))
                np.testing.assert_array_equal(found, function(edges(dtype)), err_msg=name)


def test_floating_point_is_never_computed_on_the_host():
    x = np.ones(3, np.float32)
    assert on_host("add", x, x) is None
    assert on_host("add", np.ones(65, np.int32), np.ones(65, np.int32)) is None
