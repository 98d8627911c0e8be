"""The training state: a plain tree, described by the signature of `init`.

`step` means steps completed: state 0 is fresh, state t is what step t produced.

    {"key": key<fry>[], "step": uint32[], "parameters": {...}, "optimizer": {...}}
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt32

from anh_jax.errors import ConfigError
from anh_jax.program.signature import ProgramSignature, Tensor
from anh_jax.program.tensors import dtype_of, sharding_of
from anh_jax.program.tree import Tree

State: TypeAlias = dict[str, Any]

_MOVING = ("parameters", "optimizer", "step")
_SEEN_BY_GRADIENT = ("parameters", "step")


def seed_words(seed: int) -> UInt32[np.ndarray, 2]:
    """Return the seed as `init` takes it: the high word, then the low word.

    Raises:
        ConfigError: the seed does not fit 64 bits.
    """
    if not 0 <= seed < 2**64:
        raise ConfigError(f"training.seed: {seed} is not within 0 .. 2^64 - 1")
    return np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)


def moving_part(state: State) -> State:
    """Return what `update` takes of the state."""
    return {name: state[name] for name in _MOVING}


def gradient_part(state: State) -> State:
    """Return what `gradient` takes of the state."""
    return {name: state[name] for name in _SEEN_BY_GRADIENT}


def moved(state: State, updated: State) -> State:
    """Return the state with what `update` gave in place of what it took."""
    return {**state, **updated}


def abstract_state(program: ProgramSignature, mesh: Mesh) -> Tree:
    """Return shape, dtype and sharding of each leaf that a program gives: what a restore asks for.

    Of `init` that is the state.
    """

    def concrete(tensor: Tensor) -> jax.ShapeDtypeStruct:
        sharding = sharding_of(mesh, tensor.spec)
        return jax.ShapeDtypeStruct(tensor.shape, dtype_of(tensor.dtype), sharding=sharding)

    return jax.tree.map(concrete, program.output_tree())
