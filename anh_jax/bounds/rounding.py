"""The worst-case rounding of one operator, from its committed operands: the leaf of a dispute.

Nothing is propagated: the operands are given, so the bound is sound however ill-conditioned the
program is. A sum of n products, in any order, any blocking, with or without fused multiply-add, is
within gamma_n sum|a b| of the exact one, gamma_n = n u / (1 - n u) (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., section 3.1 and lemma 8.4). Data movement, comparisons, choices
and integers are exact. Other elementwise functions have a stated allowance for each backend.

Holds for sums of the operator's own products. A convolution computed through a transform (Winograd,
Fourier) is none. Device code may flush numbers below the smallest normal one, as operand or result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from attest.numerics_class import ClassRules

Array = NDArray[Any]
Backend = Literal["cpu", "gpu", "tpu"]
# Gives the operator's results for other operands of the same shapes, float64 where it has floats.
Evaluate = Callable[..., tuple[Array, ...]]

_TINY_ERROR = 2.0**-50  # relative error of the float64 reference itself, with room


@dataclass(frozen=True)
class Ulps:
    """How far a backend's function may be from the exact value, in units in the last place."""

    cpu: float
    gpu: float
    tpu: float

    def on(self, backend: Backend) -> float:
        """Return the allowance of a backend."""
        return {"cpu": self.cpu, "gpu": self.gpu, "tpu": self.tpu}[backend]


# CPU: at least 1.5 times the largest error of 10 million operands, 2**-60 to 2**120 (measured, jax
# 0.10.2, x86). GPU and TPU are declared: several times what vendors state, not measured.
_BASIC = Ulps(0.5, 0.5, 1)
_QUOTIENT = Ulps(1, 4, 8)
_FUNCTION = Ulps(6, 16, 64)
ALLOWANCES: dict[str, Ulps] = {
    **dict.fromkeys(("add", "subtract", "multiply", "convert", "square"), _BASIC),
    **dict.fromkeys(("divide", "sqrt"), _QUOTIENT),
    "rsqrt": Ulps(3, 4, 8),
    **dict.fromkeys(
        (
            *("exponential", "exponential_minus_one", "log", "log_plus_one", "logistic", "tanh"),
            *("sine", "cosine", "tan", "cbrt", "power", "atan2", "erf", "atan", "asin", "acos"),
            *("asinh", "acosh", "atanh"),
        ),
        _FUNCTION,
    ),
    **dict.fromkeys(("sinh", "cosh", "bessel_i1e"), Ulps(24, 48, 96)),
    **dict.fromkeys(("erfc", "erf_inv"), Ulps(96, 128, 256)),
}
"""Elementwise functions that round, by StableHLO or CHLO name without its dialect.

Gamma functions have none: near their zeros they lose all digits.
"""

# Operators whose results are sums of terms: which operands are factors of a term. The others (an
# index, what a window selects by) choose the terms.
FACTORS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "dot": lambda count: (0, 1),
    "dot_general": lambda count: (0, 1),
    "convolution": lambda count: (0, 1),
    "dynamic_conv": lambda count: (0, 1),
    "reduce": lambda count: tuple(range(count)),
    "reduce_window": lambda count: tuple(range(count)),
    "scatter": lambda count: tuple(i for i in range(count) if i != count // 2),
    "select_and_scatter": lambda count: (1,),
}
_PRODUCTS = frozenset(("dot", "dot_general", "convolution", "dynamic_conv"))


@dataclass(frozen=True)
class Bound:
    """An operator's result in float64 and how far an honest execution may be from it.

    `error` is positive everywhere and infinite where anything may come out (a partial sum may
    overflow, an operand is not finite).
    """

    value: Array
    error: Array


@dataclass(frozen=True)
class Excess:
    """The largest distance over bound of one operator, and where: an output, an element in C order.

    `committed` and `expected` are the values there, `error` the bound. Infinite where an exact
    result is another one.
    """

    value: float
    output: int = 0
    element: int = 0
    committed: float = 0.0
    expected: float = 0.0
    error: float = 0.0

    @property
    def accepted(self) -> bool:
        """Tell whether an honest execution may have given these outputs."""
        return self.value <= 1


def sum_bound(
    operator: str,
    inputs: Sequence[Array],
    evaluate: Evaluate,
    *,
    rules: ClassRules,
    output: np.dtype[Any],
) -> Bound:
    """Return the bound of an operator of FACTORS, whose sums the class accumulates as it says.

    `evaluate` is called with the operands, their magnitudes, and ones, which counts the terms.
    """
    factors = FACTORS[operator](len(inputs))
    wide = [_wide(x) for x in inputs]
    value = _only(evaluate(*wide))
    magnitudes = [np.abs(x) if i in factors else x for i, x in enumerate(wide)]
    magnitude = _only(evaluate(*magnitudes))
    ones = [np.ones_like(x) if i in factors else x for i, x in enumerate(wide)]
    terms = _only(evaluate(*ones))
    read = _reading(inputs[0].dtype, rules) if operator in _PRODUCTS else 0.0
    relative = _growth(terms, operator, read, rules) + _TINY_ERROR
    largest = sum(float(np.max(magnitudes[i], initial=0.0)) for i in factors)
    with np.errstate(all="ignore"):
        error = relative * magnitude + terms * (2 + largest) * tiny(output)
        # The last sum is the result, unless it is kept in a coarser type.
        if roundoff(output) > rules.roundoff.reduce:
            error += roundoff(output) * (np.abs(value) + error)
        error += tiny(output)
        overflows = ~(magnitude + error < _largest(output))
    return Bound(value, np.where(overflows, np.inf, error))


def function_bound(
    operator: str,
    inputs: Sequence[Array],
    evaluate: Evaluate,
    *,
    backend: Backend,
    output: np.dtype[Any],
) -> Bound:
    """Return the bound of an elementwise function of ALLOWANCES."""
    value = _only(evaluate(*map(_wide, inputs)))
    flushed = [_flushed(x) for x in inputs]
    ulps = ALLOWANCES[operator].on(backend)
    with np.errstate(all="ignore"):
        # One unit in the last place is at most two roundoffs of the value.
        error = (2 * ulps * roundoff(output) + _TINY_ERROR) * np.abs(value) + tiny(output)
        if any(f is not x for f, x in zip(flushed, inputs, strict=True)):
            moved = np.abs(_only(evaluate(*map(_wide, flushed))) - value)
            error += np.where(np.isnan(moved), np.inf, moved)
    return Bound(value, error)


def excess(committed: Array, bound: Bound, *, output: int = 0) -> Excess:
    """Return the largest distance of committed values over their bound."""
    given = _wide(committed)
    value, error = bound.value, bound.error
    with np.errstate(all="ignore"):
        distance = np.abs(given - value)
        ratio = np.where(np.isinf(error), 0.0, distance / error)
        # Too large for the type: infinity of that sign is what rounding gives.
        past = np.abs(value) + error >= _largest(committed.dtype)
        ratio = np.where(past & np.isinf(given) & (given * value > 0), 0.0, ratio)
    special = ~np.isfinite(value)
    same = (given == value) | (np.isnan(given) & np.isnan(value))
    ratio = np.where(special & ~np.isinf(error), np.where(same, 0.0, np.inf), ratio)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    return _largest_of(ratio, given, value, error, output)


def exact_excess(committed: Array, expected: Array, *, output: int = 0) -> Excess:
    """Compare an exact operator's result by value: 0 where all are equal, else infinity.

    Zeros of both signs are equal, and all that is not a number: which one comes out of a maximum
    is the device's choice.
    """
    given, value = committed, expected
    if (given.shape, given.dtype) != (value.shape, value.dtype):
        return Excess(np.inf, output)
    same = given == value
    if is_float(given.dtype):
        wide, other = _wide(given), _wide(value)
        same = same | (np.isnan(wide) & np.isnan(other))
        # What is smaller than the smallest normal number may be flushed where it passes through.
        least = tiny(given.dtype)
        same = same | ((np.abs(wide) < least) & (np.abs(other) < least))
    ratio = np.where(same, 0.0, np.inf)
    return _largest_of(ratio, given, value, np.zeros(given.shape), output)


def is_float(dtype: Any) -> bool:
    """Tell whether a dtype holds real floating-point numbers."""
    return np.issubdtype(dtype, np.floating) or dtype == jnp.bfloat16


def roundoff(dtype: Any) -> float:
    """Return the unit roundoff of a floating-point dtype, half the spacing at one."""
    return float(jnp.finfo(dtype).eps) / 2


def tiny(dtype: Any) -> float:
    """Return the smallest normal number of a floating-point dtype."""
    return float(jnp.finfo(dtype).smallest_normal)


def gamma(terms: Array, unit: float) -> Array:
    """Return n u / (1 - n u), infinite where n u >= 1."""
    product = np.asarray(terms, np.float64) * unit
    with np.errstate(all="ignore"):
        return np.where(product < 1, product / (1 - product), np.inf)


def _growth(terms: Array, operator: str, read: float, rules: ClassRules) -> Array:
    """Return the relative error of a sum of so many terms against the sum of magnitudes."""
    unit = rules.roundoff.reduce
    if operator not in _PRODUCTS:
        return gamma(np.maximum(terms - 1, 0), unit)
    if read == 0.0:
        return gamma(terms, unit)
    # Units that read coarser operands cut partial sums off instead of rounding them, and a split
    # into parts has three products a term.
    parts = 3 if rules.dot_algorithm.endswith("_X3") else 1
    return gamma(parts * terms, 2 * unit) * (1 + read) + read


def _reading(operand: Any, rules: ClassRules) -> float:
    """Return what reading operands coarsely adds to each product, relative to it.

    Two operands, and the product of low parts that a split leaves out.
    """
    unit = rules.roundoff.dot
    return (1 + unit) ** 3 - 1 if unit > roundoff(operand) else 0.0


def _flushed(x: Array) -> Array:
    if not is_float(x.dtype):
        return x
    small = (np.abs(_wide(x)) < tiny(x.dtype)) & (x != 0)
    return np.where(small, np.zeros_like(x), x) if small.any() else x


def _largest(dtype: Any) -> float:
    return float(jnp.finfo(dtype).max)


def _wide(x: Array) -> Array:
    return x.astype(np.float64) if is_float(x.dtype) else x


def _only(results: Sequence[Array]) -> Array:
    (result,) = results
    return np.asarray(result)


def _largest_of(ratio: Array, given: Array, value: Array, error: Array, output: int) -> Excess:
    if not ratio.size:
        return Excess(0.0, output)
    at = int(np.argmax(ratio))
    return Excess(
        value=float(ratio.flat[at]),
        output=output,
        element=at,
        committed=float(given.flat[at]),
        expected=float(value.flat[at]),
        error=float(error.flat[at]),
    )
