"""A decoder-only transformer over tokens, with one matrix for embedding and prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from anh_jax.experiment_choices import LanguageModel
from anh_jax.models.axes import AxisNames, constrain
from anh_jax.models.compute import FLOAT32, Compute, wide
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.model import Model, parameter_tensors
from anh_jax.models.modules import blueprint
from anh_jax.models.transformer import STACK_AXES, Dropout, StackShape, stack
from anh_jax.program.tree import Tree

_AXES: dict[str, AxisNames] = {
    **STACK_AXES,
    "ends/embedding": ("vocabulary", "embed"),
    "ends/positions": (None, "embed"),
}


class Ends(nnx.Module):
    """What lies before and after the blocks: embedding, positions, norm, tied prediction."""

    def __init__(self, *, vocabulary: int, length: int, width: int, rngs: nnx.Rngs) -> None:
        draw = fan_in_uniform(width)
        self.embedding = nnx.Param(draw(rngs.params(), (vocabulary, width)))
        self.positions = nnx.Param(draw(rngs.params(), (length, width)))
        self.norm = nnx.RMSNorm(width, rngs=rngs)

    def embed(self, tokens: Int[Array, "b length"]) -> Float[Array, "b length width"]:
        """Return the stream that enters the blocks."""
        # Gathering rows of a split table would make the partitioner copy it whole anyway.
        table = constrain(self.embedding[...], None, None)
        positions = constrain(self.positions[...], None, None)
        # Rows have a norm near one: this brings each entry of the stream near one.
        scale = math.sqrt(table.shape[1])
        return (jnp.take(table, tokens, axis=0) + positions[None]) * scale

    def predict(
        self, stream: Float[Array, "b length width"]
    ) -> Float[Array, "b length vocabulary"]:
        """Return the logits of the next token at each position."""
        table = constrain(self.embedding[...], "vocabulary", None)
        logits = jnp.einsum("blw,vw->blv", self.norm(stream), table)
        return constrain(logits, "batch", None, "vocabulary")


def language_model(config: LanguageModel, compute: Compute = FLOAT32) -> Model:
    """Build the model; `tokens` holds sequence_length + 1 tokens, the last only predicted.

    Raises:
        ConfigError: heads do not divide the width.
    """
    length = config.sequence_length
    shape = StackShape(config.width, config.depth, config.heads, config.mlp_width, compute)
    blocks = stack(shape)
    ends = blueprint(
        lambda rngs: Ends(
            vocabulary=config.vocabulary, length=length, width=config.width, rngs=rngs
        )
    )

    def init(key: Key[Array, ""]) -> Tree:
        return {
            "blocks": blocks.init(jax.random.fold_in(key, 0)),
            "ends": ends.init(jax.random.fold_in(key, 1)),
        }

    def apply(
        parameters: Tree, examples: Mapping[str, Array], *, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b length vocabulary"]:
        module = ends.merge(parameters["ends"])
        tokens = examples["tokens"].astype(jnp.int32)[:, :-1]
        mask = jnp.tril(jnp.ones((length, length), jnp.bool_))
        stream = constrain(compute.keep(module.embed(tokens)), "batch", None, None)
        stream = blocks(parameters["blocks"], stream, mask, Dropout(config.dropout, keys))
        return module.predict(wide(stream))

    return Model("language_model", parameter_tensors(init, _AXES), init, apply)
