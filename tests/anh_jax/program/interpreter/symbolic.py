"""Small functions whose operators have sizes that are known once the batch is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from tests.anh_jax.program.interpreter.battery import floats, integers

# The batch these are called with; no other size of their arguments is this one.
ROWS = 7
X = floats(ROWS, 4)


def _placed(x: Any) -> Any:
    """Return the array placed on the mesh of an export; elsewhere there is none."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, PartitionSpec("data"))


def _padded_by_rows(x: Any) -> Any:
    return lax.pad(x, jnp.float32(1), [(x.shape[0], 1, 0), (0, 0, 1)]).sum(0)


SYMBOLIC: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "numbered rows": (lambda x: x * jnp.arange(x.shape[0], dtype=jnp.float32)[:, None], (X,)),
    "padded by rows": (_padded_by_rows, (X,)),
    "convolution along rows": (
        lambda x, k: lax.conv(x.T[None], k, (2,), "SAME").sum((0, 2)),
        (X, floats(3, 4, 4, seed=1)),
    ),
    "take a column": (
        lambda x, i: jnp.take(x, i, axis=1, mode="clip"),
        (X, integers(2, high=4)),
    ),
    "slice of all rows": (
        lambda x, i: lax.dynamic_slice(x, (jnp.int32(0), i), (x.shape[0], 2)),
        (X, np.int32(1)),
    ),
    "flattened": (lambda x: jnp.sin(x.reshape(-1)[::-1]).reshape(x.shape), (X,)),
    "placed": (lambda x: _placed(x) * 2, (X,)),
    "cumulative": (
        lambda x: (jnp.cumsum(x, 1), jnp.cumprod(x, 1), lax.cummax(x, 1), lax.cumlogsumexp(x, 1)),
        (X,),
    ),
    "cumulative sum's gradient": (
        lambda x: jax.grad(lambda v: jnp.sin(jnp.cumsum(v, 1)).sum())(x),
        (X,),
    ),
    "exact gelu": (lambda x: jax.nn.gelu(x, approximate=False), (X,)),
    "mean": (lambda x: x.mean(0), (X,)),
    "sorted": (lambda x: jnp.sort(x, 1), (X,)),
    "largest": (lambda x: lax.top_k(x, 2)[0], (X,)),
}
