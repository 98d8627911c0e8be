"""Move blocks between memory and the threads of a GPU, in kernels that Triton compiles."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plgpu

from anh_jax.digest.pallas_blake3 import Words


def columns(tile: jax.Array) -> Words:
    """Take a tile (chunks, 16) apart into 16 arrays (chunks,), by halves: Triton has no slices."""
    parts = (tile,)
    while parts[0].shape[1] > 1:
        parts = tuple(half for part in parts for half in jnp.split(part, 2, axis=1))
    return tuple(jnp.reshape(part, part.shape[:1]) for part in parts)


def store(out: jax.Ref, places: tuple[Any, ...], value: Words) -> None:
    """Store chaining values at places (index, ..., rows) of an array (..., rows, 8)."""
    for j, word in enumerate(value):
        plgpu.store(out.at[(*places, j)], word)
