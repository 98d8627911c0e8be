"""Random bits as a pure function of (seed, name, loop iterations, element): no key is threaded.

A finaliser of the murmur family is run once for each element, with a second key word added half
way through, so that two streams are no shifted copies of one another. Not for secrets: the seed
alone is unforeseeable. Threefry for each operator would multiply compile time (measured: over a
minute).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import UInt32

from anh_jax.errors import ProgramError

_MASK = 0xFFFFFFFF
# Multipliers with a low bias over all 32-bit inputs (hash-prospector, "lowbias32").
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B
_GOLDEN = 0x9E3779B9


@dataclass(frozen=True)
class Stream:
    """Two words that select one stream of bits; each is a uint32 scalar, traced or not."""

    first: Any
    second: Any


def seed_of(seed: int) -> UInt32[jax.Array, "2"]:
    """Return a 64-bit seed as two words, spread by SHA-256 so that neighbours share nothing.

    Raises ProgramError where the seed does not fit.
    """
    if not 0 <= seed < 2**64:
        raise ProgramError(f"noise seed: {seed} is not within 0 .. 2^64 - 1; draw 64 bits")
    digest = hashlib.sha256(b"anh noise seed" + seed.to_bytes(8, "big")).digest()
    words = [int.from_bytes(digest[i : i + 4], "big") for i in (0, 4)]
    return jnp.asarray(words, jnp.uint32)


def stream(seed: UInt32[jax.Array, "2"], name: str, iterations: Sequence[Any]) -> Stream:
    """Return the stream of one value of one operator, in one iteration of the loops around it.

    `name` is static; iterations are integers, traced or not, of any integer type.
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = [jnp.uint32(int.from_bytes(digest[i : i + 4], "big")) for i in (0, 4)]
    first, second = (_finalised(seed[i] ^ words[i], jnp.uint32(0)) for i in (0, 1))
    for counter in iterations:
        turn = jnp.asarray(counter).astype(jnp.uint32) * jnp.uint32(_GOLDEN)
        first = _finalised(first ^ turn, second)
        second = _finalised(second + turn, first)
    return Stream(first, second)


def substream(parent: Stream, index: int) -> Stream:
    """Return a stream of its own for the part `index` of what `parent` is for."""
    turn = jnp.uint32(((index + 1) * _GOLDEN) & _MASK)
    first = _finalised(parent.first ^ turn, parent.second)
    return Stream(first, _finalised(parent.second + turn, first))


def random_bits(source: Stream, shape: tuple[int, ...]) -> UInt32[jax.Array, "..."]:
    """Return 32 bits for each element; elements are counted modulo 2^32."""
    counter = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1:
            place = lax.broadcasted_iota(jnp.uint32, shape, axis)
            counter = counter + place * jnp.uint32(stride & _MASK)
        stride *= shape[axis]
    return _finalised(counter ^ source.first, source.second)


def signed_unit(source: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Return float32 uniform on (-1, 1), never zero: odd multiples of 2^-23."""
    bits = random_bits(source, shape)
    odd = ((bits >> 8) | jnp.uint32(1)).astype(jnp.float32)
    return odd * jnp.float32(2**-23) - jnp.float32(1)


def unit(source: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Return float32 uniform on [0, 1), multiples of 2^-24."""
    return (random_bits(source, shape) >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def _finalised(value: Any, key: Any) -> Any:
    value = value ^ (value >> 16)
    value = value * jnp.uint32(_FIRST)
    value = value + key
    value = value ^ (value >> 15)
    value = value * jnp.uint32(_SECOND)
    return value ^ (value >> 16)
