"""Small functions, one operator family each, with arguments to call them on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

F = "float32"


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def integers(*shape: int, seed: int = 0, high: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


X, Y, P = floats(3, 4), floats(3, 4, seed=1), floats(3, 4, low=0.1)
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, 3.5, -2.5], np.float32)
IMAGE, KERNEL = floats(2, 3, 8, 8), floats(4, 3, 3, 3, seed=1)
WORDS = np.array([3, 9], np.uint32)
INDEX = np.array([[2], [0], [9], [0]], np.int32)

ELEMENTWISE: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "arithmetic": (lambda x, y: (x + y * x - y / x, -x, jnp.abs(y)), (X, Y)),
    "extremes": (lambda x, y: (jnp.maximum(x, y), jnp.minimum(x, y), jnp.clip(x, -1, 1)), (X, Y)),
    "exponentials": (lambda x: (jnp.exp(x), jnp.expm1(x), jnp.tanh(x), jax.nn.sigmoid(x)), (X,)),
    "logarithms": (lambda p: (jnp.log(p), jnp.log1p(p), jnp.sqrt(p), lax.rsqrt(p)), (P,)),
    "trigonometry": (lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(x), jnp.cbrt(x)), (X,)),
    "powers": (lambda p, y: (jnp.power(p, y), jnp.arctan2(p, y), lax.rem(y, p)), (P, Y)),
    "precision": (lambda x: lax.reduce_precision(x, 8, 7) + jnp.sign(x), (X,)),
    "halves": (lambda x: (x.astype(jnp.bfloat16) * jnp.bfloat16(1.5)).astype(F), (X,)),
    "select": (lambda x, y: jnp.where(x > y, x, jnp.where(jnp.isfinite(y), y, x)), (X, Y)),
    "select by one": (lambda x, y: lax.select(x[0, 0] > y[0, 0], x, y), (X, Y)),
    "erf": (lambda x: (lax.erf(x), lax.erfc(x)), (X,)),
    "erf_inv": (lambda p: lax.erf_inv(p - 1), (P * np.float32(0.9),)),
    "bessel": (lambda p: lax.bessel_i1e(p), (P,)),
    "inverses": (lambda p: (jnp.arccos(p / 3), jnp.arccosh(p + 1), jnp.arctan(p)), (P,)),
    "arcsine": (lambda p: jnp.arcsin(p / 3), (P,)),
    "hyperbolic": (lambda p: (jnp.sinh(p), jnp.arcsinh(p), jnp.arctanh(p / 3), jnp.cosh(p)), (P,)),
}
ROUNDED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rounding": (lambda x: (jnp.round(x), jnp.floor(x), jnp.ceil(x)), (X,)),
    # Smooth, but jax itself has no derivative of it.
    "named": (lambda x: lax.composite(lambda v: jnp.sin(v) * 2, name="my.wave")(x), (X,)),
    "away from zero": (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), (X,)),
    "to integers": (lambda x: x.astype(jnp.int32), (X,)),
    "bits": (lambda x: lax.bitcast_convert_type(x, jnp.uint32) >> 3, (X,)),
    "integers": (
        lambda i, j: (i // (j + 1), i % (j + 1), i << 2, -i >> 1, i ^ j, ~i, lax.clz(i), i**3),
        (integers(6), integers(6, seed=1)),
    ),
    "counts": (lambda w: (lax.population_count(w), w & 7, w | 8), (WORDS,)),
    "gammas": (lambda p: (lax.lgamma(p), lax.digamma(p)), (P,)),
    "special values": (lambda x: (x > 0, jnp.isnan(x), jnp.sign(x), jnp.sort(x)), (SPECIAL,)),
    "bfloat16 constants": (
        lambda x: x.astype(jnp.bfloat16) + np.array([1.5, -0.1, np.nan], jnp.bfloat16)[:, None],
        (X,),
    ),
    "fp8 constants": (
        lambda x: (
            x.astype(jnp.float8_e4m3fn).astype(F)
            + np.array([1.5, -0.125, 448], jnp.float8_e4m3fn).astype(F)[:, None]
            + lax.convert_element_type(np.array([[2.5], [1], [7]], jnp.float8_e5m2), F)
        ),
        (X,),
    ),
}
MOVEMENT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "reshape": (lambda x: (x.reshape(4, 3), x.T, x[::-1], x[1:, ::2]), (X,)),
    "broadcast": (lambda x: jnp.broadcast_to(x[:, None], (3, 2, 4)), (X,)),
    "joined": (lambda x, y: (jnp.concatenate([x, y], 1), jnp.stack([x, y])), (X, Y)),
    "padded": (lambda x: lax.pad(x, jnp.float32(1), [(1, 0, 2), (-1, 2, 0)]), (X,)),
    "dynamic slices": (
        lambda x, i: lax.dynamic_update_slice(x, lax.dynamic_slice(x, (i, i), (2, 2)) * 2, (0, i)),
        (X, np.int32(1)),
    ),
    "clamped starts": (
        lambda x, i: (
            lax.dynamic_slice(x, (i, -i), (2, 2)),
            lax.dynamic_update_slice(x, x[:2, :2], (-i, i)),
        ),
        (X, np.int32(9)),
    ),
    "numbered": (lambda x: x + lax.broadcasted_iota(jnp.float32, (3, 4), 1), (X,)),
    "triangles": (lambda x: jnp.tril(x) + jnp.eye(3, 4), (X,)),
}
PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "matrix": (lambda x, y: x @ y.T, (X, Y)),
    "batched": (
        lambda a, b: jnp.einsum("bij,bkj->bik", a, b),
        (floats(2, 3, 4), floats(2, 5, 4, seed=1)),
    ),
    "attention": (
        lambda q, k: jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k), axis=-1),
        (floats(3, 2, 4), floats(3, 2, 4, seed=1)),
    ),
    "halves": (
        lambda x, y: lax.dot(
            x.astype(jnp.bfloat16), y.T.astype(jnp.bfloat16), preferred_element_type=F
        ),
        (X, Y),
    ),
    "convolution": (lambda x, k: lax.conv(x, k, (2, 2), "SAME"), (IMAGE, KERNEL)),
    "dilated": (
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), [(1, 2), (0, 1)], lhs_dilation=(2, 1), rhs_dilation=(1, 2)
        ),
        (IMAGE, KERNEL),
    ),
    "grouped": (
        lambda x, k: lax.conv_general_dilated(
            x,
            k,
            (1, 1),
            "VALID",
            feature_group_count=3,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        (floats(2, 6, 6, 3), floats(3, 3, 1, 6, seed=1)),
    ),
    "convolution's gradient": (
        jax.grad(lambda x, k: jnp.sum(jnp.sin(lax.conv(x, k, (2, 2), "SAME"))), argnums=(0, 1)),
        (IMAGE, KERNEL),
    ),
}
INDEXING: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{
        f"take, {mode}": (lambda x, i, m=mode: jnp.take(x, i[:, 0], axis=0, mode=m), (X, INDEX))
        for mode in ("clip", "fill", "wrap")
    },
    "take along": (
        lambda x, i: jnp.take_along_axis(x, i, axis=1, mode="clip"),
        (X, integers(3, 2, high=4)),
    ),
    "add at": (lambda x, i, u: x.at[i[:, 0]].add(u), (X, INDEX, floats(4, 4, seed=2))),
    "set at": (lambda x, u: x.at[np.array([2, 0])].set(u), (X, floats(2, 4, seed=2))),
    "multiply at": (
        lambda x, u: x.at[np.array([2, 0])].mul(u, unique_indices=True),
        (X, floats(2, 4, seed=2)),
    ),
    "extremes at": (
        lambda x, i, u: (x.at[i[:, 0]].max(u), x.at[i[:, 0]].min(u)),
        (X, INDEX, floats(4, 4, seed=2)),
    ),
    "embedding's gradient": (
        jax.grad(lambda t, i: jnp.sum(jnp.sin(t[i]))),
        (floats(5, 4), integers(3, 2)),
    ),
    "segments": (
        lambda x, i: jax.ops.segment_sum(x, i, num_segments=4),
        (floats(6, 3), integers(6, high=4)),
    ),
}
REDUCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sums": (lambda x: (x.sum(), x.sum(0), x.mean(1), jnp.var(x, 1)), (X,)),
    "extremes": (lambda x: (x.max(1), x.min(0), jax.nn.logsumexp(x, 1)), (X,)),
    "products": (lambda x: x.prod(1), (P,)),
    "logic": (lambda x: ((x > 0).all(1), (x > 0).any(0)), (X,)),
    "argmax": (lambda x: (x.argmax(1), x.argmin(0)), (np.round(X),)),
    "custom": (
        lambda x: lax.reduce(x, np.float32(0), lambda a, b: a + b + a * b, (1,)),
        (X * np.float32(0.1),),
    ),
    "from a start": (lambda x: lax.reduce(x, np.float32(5), lax.add, (1,)), (X,)),
    "max pool": (
        lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "SAME"),
        (IMAGE,),
    ),
    "average pool": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 3, 3), (1, 1, 2, 2), "VALID"),
        (IMAGE,),
    ),
    "dilated windows": (
        lambda x: lax.reduce_window(
            x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 1, 2), "VALID", (1, 1, 2, 1), (1, 1, 1, 3)
        ),
        (IMAGE,),
    ),
    "pairs": (
        lambda x, y: lax.reduce(
            (x, y), (np.float32(0), np.float32(1)), lambda a, b: (a[0] + b[0], a[1] * b[1]), (1,)
        ),
        (X, Y),
    ),
    "max pool's gradient": (
        jax.grad(
            lambda x: jnp.sum(
                jnp.sin(lax.reduce_window(x, -np.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "SAME"))
            )
        ),
        (IMAGE,),
    ),
    "cumulative sum": (lambda x: jnp.cumsum(x, 1), (X,)),
    "cumulative product": (lambda x: jnp.cumprod(x, 0), (X,)),
    "cumulative maximum": (lambda x: lax.cummax(x, 1), (X,)),
    "cumulative logsumexp": (lambda x: lax.cumlogsumexp(x, 1), (X,)),
}
SORTING: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sort": (lambda x: jnp.sort(x, axis=0), (X,)),
    "argsort": (lambda x: jnp.argsort(x, axis=1), (X,)),
    "two keys": (
        lambda i, x: lax.sort((i, x, x * 2), num_keys=2),
        (integers(8, high=3), floats(8)),
    ),
    "top k": (lambda x: lax.top_k(x, 2)[0], (X,)),
    "top k indices": (lambda x: lax.top_k(x, 2)[1], (X,)),
    "median": (lambda x: jnp.median(x, axis=1), (X,)),
}
RANDOM: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    name: (lambda w, f=function: f(jax.random.wrap_key_data(w)), (WORDS,))
    for name, function in {
        "bits": lambda key: jax.random.bits(key, (5,)),
        "uniform": lambda key: jax.random.uniform(key, (3, 3)),
        "normal": lambda key: jax.random.normal(key, (7,)),
        "permutation": lambda key: jax.random.permutation(key, 9),
        "categorical": lambda key: jax.random.categorical(key, jnp.zeros(5), shape=(6,)),
        "randint": lambda key: jax.random.randint(key, (4,), 0, 100),
        "folded": lambda key: jax.random.key_data(jax.random.split(jax.random.fold_in(key, 3))),
    }.items()
}


def _scanned(x: Any, y: Any) -> Any:
    def body(carry: Any, row: Any) -> Any:
        carry = jnp.tanh(carry @ (x.T @ x) * 0.1 + row)
        return carry, carry.sum()

    return lax.scan(jax.checkpoint(body), y[0], x)


def _nested(x: Any) -> Any:
    def inner(i: Any, value: Any) -> Any:
        return jnp.sin(value) + i.astype(jnp.float32)

    def outer(carry: Any, row: Any) -> Any:
        return lax.fori_loop(0, 3, inner, carry + row), carry

    return lax.scan(outer, x[0], x)


CONTROL: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "scan": (_scanned, (X, Y)),
    "nested": (_nested, (X,)),
    "scan's gradient": (jax.grad(lambda x, y: _scanned(x, y)[0].sum()), (X, Y)),
    "counted": (lambda x: lax.fori_loop(2, 7, lambda i, v: v * 0.5 + x[i % 3], x[0]), (X,)),
    "never": (lambda x: lax.fori_loop(5, 5, lambda i, v: v * 2, x), (X,)),
    "until": (lambda x: lax.while_loop(lambda v: v.sum() < 50, lambda v: v * 1.5, x), (P,)),
    "branch": (lambda x, y: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, y), (X, Y)),
    "switch": (
        lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, lambda v: v * 3], x),
        (np.int32(2), X),
    ),
    "associative": (lambda x: lax.associative_scan(lambda a, b: a * 0.5 + b, x), (X,)),
    "barrier": (lambda x: lax.optimization_barrier((x, x + 1))[1], (X,)),
}
FAMILIES = {
    "elementwise": ELEMENTWISE,
    "rounded": ROUNDED,
    "movement": MOVEMENT,
    "products": PRODUCTS,
    "indexing": INDEXING,
    "reductions": REDUCTIONS,
    "sorting": SORTING,
    "random": RANDOM,
    "control": CONTROL,
}
# Written in another form for each platform, so that no program can be stored: by any jax, and by
# newer ones. With a batch dimension a cumulative sum has one form.
PER_PLATFORM = (
    "max pool's gradient",
    *(("cumulative sum", "arcsine") if jax.__version_info__ >= (0, 11) else ()),
)
