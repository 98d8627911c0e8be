"""Sums of squares over a tensor's blocks, on the device in float32 and with float64's range.

A gradient of 1e-16 may lie 1e-23 off, whose square no float32 holds. So the squares are summed
twice, as they are and of values scaled up, and each block takes the sum that did not overflow.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.blocks import block_sums

_UP = 2.0**60


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """Hold sums over the blocks of each family: of squares, and of squares scaled up."""

    plain: tuple[jax.Array, ...]
    scaled: tuple[jax.Array, ...]


def square_sums(deviation: jax.Array) -> Sums:
    """Return a deviation's squares summed over each family's blocks, plain and scaled up."""
    wide = deviation.astype(jnp.float32)
    plain = jnp.square(wide)
    scaled = jnp.square(wide * jnp.float32(_UP))
    return Sums(block_sums(plain), block_sums(scaled))


def host_sums(sums: Sums) -> tuple[np.ndarray[Any, Any], ...]:
    """Return what `square_sums` gave as float64, one array for each family of blocks.

    Not-a-number stays so.
    """
    return tuple(_one(plain, scaled) for plain, scaled in zip(sums.plain, sums.scaled, strict=True))


def _one(plain: jax.Array, scaled: jax.Array) -> np.ndarray[Any, Any]:
    large, small = (np.asarray(x).astype(np.float64) for x in (plain, scaled))
    return np.where(np.isfinite(small), small * _UP**-2, large)
