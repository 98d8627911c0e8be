"""Draws text from a trained byte-level language model, for people to look at; nothing is signed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from anh_jax.models.model import Model
from anh_jax.program.tree import Tree


def generate_bytes(
    model: Model,
    parameters: Tree,
    prompt: bytes,
    *,
    length: int,
    window: int,
    key: Key[Array, ""],
    temperature: float = 0.7,
) -> bytes:
    """Continue `prompt` by `length` bytes, each drawn from the model's softmax at a temperature.

    `window` is the model's sequence length: what it sees of the text so far.
    """

    @jax.jit
    def draw(tokens: Int[Array, "1 window+1"], position: Array, key: Key[Array, ""]) -> Array:
        logits = model.apply(parameters, {"tokens": tokens}, keys=None)
        return jax.random.categorical(key, logits[0, position] / jnp.float32(temperature))

    text = bytearray(prompt)
    for index in range(length):
        seen = np.frombuffer(bytes(text[-window:]), dtype=np.uint8)
        tokens = np.zeros((1, window + 1), dtype=np.int32)
        tokens[0, : len(seen)] = seen
        position = jnp.int32(len(seen) - 1)
        text.append(int(draw(jnp.asarray(tokens), position, jax.random.fold_in(key, index))))
    return bytes(text)
