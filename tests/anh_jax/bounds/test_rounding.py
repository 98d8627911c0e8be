"""No order of summation leaves the bound of one operator, and a fault just above it does."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.bounds.rounding import (
    ALLOWANCES,
    Bound,
    exact_excess,
    excess,
    function_bound,
    gamma,
    sum_bound,
)
from attest.numerics_class import CLASSES

F32 = CLASSES["f32"]
ROUND = np.float32

finite = st.floats(-(2.0**20), 2.0**20, width=32)
# Sizes far apart make sums cancel: the hard case for a sum's error.
scaled = st.builds(lambda m, e: ROUND(m * 2.0**e), st.floats(-2, 2, width=32), st.integers(-30, 30))
terms = st.lists(st.tuples(scaled, scaled), min_size=1, max_size=24)


def dot(left, right):
    return (np.asarray(np.sum(left * right)),)


def dot_bound(pairs, rules=F32) -> Bound:
    left, right = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    return sum_bound("dot", [left, right], dot, rules=rules, output=np.dtype(np.float32))


def fused(a, b, c) -> np.float32:
    """Return round(a b + c) with one rounding, by exact arithmetic."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = ROUND(float(exact))
    around = [near, np.nextafter(near, ROUND(-np.inf)), np.nextafter(near, ROUND(np.inf))]
    return min(around, key=lambda x: abs(Fraction(float(x)) - exact))


def in_sequence(values):
    total = values[0]
    for value in values[1:]:
        total = ROUND(total + value)
    return total


def pairwise(values):
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return ROUND(pairwise(values[:half]) + pairwise(values[half:]))


def blocked(values, size):
    return in_sequence([pairwise(values[i : i + size]) for i in range(0, len(values), size)])


def chained(pairs):
    total = ROUND(0)
    for a, b in pairs:
        total = fused(a, b, total)
    return total


@settings(max_examples=150, deadline=None)
@given(terms, st.randoms(use_true_random=False), st.integers(1, 8))
def test_no_order_of_summation_leaves_the_bound(pairs, random, size) -> None:
    bound = dot_bound(pairs)
    random.shuffle(pairs)
    products = [ROUND(a * b) for a, b in pairs]
    for total in (in_sequence(products), pairwise(products), blocked(products, size)):
        assert excess(np.asarray(total), bound).accepted
    assert excess(np.asarray(chained(pairs)), bound).accepted


@settings(max_examples=100, deadline=None)
@given(terms, st.sampled_from([-1, 1]))
def test_fault_slightly_above_the_bound_is_caught(pairs, sign) -> None:
    bound = dot_bound(pairs)
    value, error = float(bound.value), float(bound.error)
    outside = ROUND(value + sign * 1.01 * error)
    while abs(float(outside) - value) <= error:
        outside = np.nextafter(outside, ROUND(sign * np.inf))
    assert not excess(np.asarray(outside), bound).accepted


@settings(max_examples=60, deadline=None)
@given(st.lists(scaled, min_size=2, max_size=24), st.randoms(use_true_random=False))
def test_sum_without_products_has_one_rounding_less(values, random) -> None:
    array = np.array(values, np.float32)
    zero = np.zeros((), np.float32)
    bound = sum_bound(
        "reduce",
        [array, zero],
        lambda x, start: (np.asarray(np.sum(x) + start),),
        rules=F32,
        output=np.dtype(np.float32),
    )
    random.shuffle(values)
    assert excess(np.asarray(in_sequence(values)), bound).accepted
    allowed = gamma(np.asarray(len(values)), 2.0**-24) * np.sum(np.abs(array.astype(float)))
    room = 2.0**-48 * np.sum(np.abs(array.astype(float)))
    assert float(bound.error) <= allowed + room + 2.0**-90


@pytest.mark.parametrize("name", ["tf32", "bf16_f32acc"])
@settings(max_examples=60, deadline=None)
@given(pairs=terms)
def test_operands_read_coarsely_stay_within_the_bound_of_their_class(name, pairs) -> None:
    bits = {"tf32": 10, "bf16_f32acc": 7}[name]
    read = [tuple(_shortened(x, bits) for x in pair) for pair in pairs]
    products = [ROUND(a * b) for a, b in read]
    assert excess(np.asarray(in_sequence(products)), dot_bound(pairs, CLASSES[name])).accepted


def _shortened(x, bits):
    if not x:
        return ROUND(x)
    _, exponent = math.frexp(float(x))
    unit = 2.0 ** (exponent - 1 - bits)
    return ROUND(round(float(x) / unit) * unit)


def test_coarse_operands_are_outside_the_bound_of_f32() -> None:
    rng = np.random.default_rng(1)
    pairs = list(rng.standard_normal((64, 2)).astype(np.float32))
    coarse = [[_shortened(x, 10) for x in pair] for pair in pairs]
    total = in_sequence([ROUND(a * b) for a, b in coarse])
    assert not excess(np.asarray(total), dot_bound(pairs)).accepted
    assert excess(np.asarray(total), dot_bound(pairs, CLASSES["tf32"])).accepted


_JAX = {
    "divide": jax.lax.div,
    "power": jax.lax.pow,
    "atan2": jax.lax.atan2,
    "add": jax.lax.add,
    "subtract": jax.lax.sub,
    "multiply": jax.lax.mul,
    "sqrt": jax.lax.sqrt,
    "rsqrt": jax.lax.rsqrt,
    "exponential": jax.lax.exp,
    "exponential_minus_one": jax.lax.expm1,
    "log": jax.lax.log,
    "log_plus_one": jax.lax.log1p,
    "logistic": jax.lax.logistic,
    "tanh": jax.lax.tanh,
    "sine": jax.lax.sin,
    "cosine": jax.lax.cos,
    "tan": jax.lax.tan,
    "cbrt": jax.lax.cbrt,
    **{
        name: getattr(jax.lax, name)
        for name in (
            *("erf", "erfc", "erf_inv", "square", "sinh", "cosh", "bessel_i1e"),
            *("asin", "acos", "atan", "asinh", "acosh", "atanh"),
        )
    },
}
_TWO = ("divide", "power", "atan2", "add", "subtract", "multiply")


def test_every_function_of_this_backend_stays_within_its_allowance() -> None:
    rng = np.random.default_rng(2)
    size = 20_000
    scale = 2.0 ** rng.uniform(-40, 6, size)
    first = (rng.standard_normal(size) * scale).astype(np.float32)
    second = rng.standard_normal(size).astype(np.float32) * 4
    assert set(_JAX) == set(ALLOWANCES) - {"convert"}
    for name, function in _JAX.items():
        x = np.abs(first) if name in ("power", "log", "sqrt", "rsqrt", "log_plus_one") else first
        inputs = [x, second] if name in _TWO else [x]
        outputs = np.asarray(function(*map(jnp.asarray, inputs)))

        def wide(*operands, function=function):
            with jax.enable_x64(True):
                return (np.asarray(function(*map(jnp.asarray, operands))),)

        bound = function_bound(name, inputs, wide, backend="cpu", output=np.dtype(np.float32))
        assert excess(outputs, bound).accepted, name
        faulty = (outputs.astype(np.float64) + 1.5 * bound.error).astype(np.float32)
        assert not excess(faulty, bound).accepted, name


@given(finite)
def test_rounding_to_bfloat16_is_one_roundoff(x) -> None:
    array = np.array([x], np.float32)
    kind = np.dtype(ml_dtypes.bfloat16)
    bound = function_bound("convert", [array], lambda v: (v,), backend="cpu", output=kind)
    rounded = array.astype(ml_dtypes.bfloat16)
    assert excess(rounded, bound).accepted
    far = np.asarray(rounded.astype(np.float32) * 1.02 + 2.0**-120).astype(ml_dtypes.bfloat16)
    assert not excess(far, bound).accepted


def test_flushed_operand_is_honest() -> None:
    least = np.array([2.0**-130], np.float32)
    bound = function_bound(
        "log", [least], lambda v: (np.log(v),), backend="cpu", output=np.dtype(np.float32)
    )
    with np.errstate(divide="ignore"):
        assert excess(np.log(np.zeros(1, np.float32)), bound).accepted


def test_not_a_number_never_passes_where_a_number_is_due() -> None:
    bound = dot_bound([(ROUND(1), ROUND(2))])
    for bad in (math.nan, math.inf, -math.inf):
        found = excess(np.asarray(ROUND(bad)), bound)
        assert found.value == math.inf and not found.accepted
    nothing = Bound(np.asarray(math.nan), np.asarray(math.nan))
    assert not excess(np.asarray(ROUND(1)), nothing).accepted
    assert excess(np.asarray(ROUND(math.nan)), nothing).accepted


def test_sum_that_may_overflow_on_the_way_accepts_anything() -> None:
    big = ROUND(3e38)
    bound = dot_bound([(big, ROUND(1)), (big, ROUND(1)), (big, ROUND(-1))])
    assert excess(np.asarray(ROUND(math.inf)), bound).accepted
    assert excess(np.asarray(ROUND(math.nan)), bound).accepted


def test_exact_operator_takes_no_other_value() -> None:
    moved = np.array([1.0, -0.0, np.nan], np.float32)
    assert exact_excess(np.array([1.0, 0.0, np.nan], np.float32), moved).accepted
    other = np.array([np.nextafter(ROUND(1), ROUND(2)), 0.0, np.nan], np.float32)
    found = exact_excess(other, moved, output=3)
    assert (found.value, found.output, found.element) == (math.inf, 3, 0)
    assert not exact_excess(np.array([1, 2], np.int32), np.array([1, 3], np.int32)).accepted
    assert not exact_excess(np.array([1.0, 0.0], np.float32), moved).accepted
