"""The transformer block, and a stack of blocks as one scanned loop.

No biases and RMS norms only: a key bias, or a bias before a norm, has a gradient of pure rounding
noise, which no tolerance can judge (docs/numerics.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from anh_jax.errors import ConfigError
from anh_jax.models.axes import AxisNames, constrain
from anh_jax.models.compute import FLOAT32, Compute, wide
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.modules import Blueprint, blueprint
from anh_jax.program.tree import Tree

# Axes of a stack's parameters; the first dimension counts the layers.
STACK_AXES: dict[str, AxisNames] = {
    "attention/query": (None, "embed", "heads", None),
    "attention/key": (None, "embed", "heads", None),
    "attention/value": (None, "embed", "heads", None),
    "attention/output": (None, "heads", None, "embed"),
    "feed_forward/up": (None, "embed", "hidden"),
    "feed_forward/down": (None, "hidden", "embed"),
}


@dataclass(frozen=True)
class StackShape:
    """Give a stack's sizes and how it keeps activations; `width` is the residual stream's."""

    width: int
    depth: int
    heads: int
    hidden: int
    compute: Compute = FLOAT32

    @property
    def head_width(self) -> int:
        """Return the width of one attention head.

        Raises:
            ConfigError: heads do not divide the width.
        """
        if self.width % self.heads:
            raise ConfigError(f"model: heads {self.heads} does not divide width {self.width}")
        return self.width // self.heads


class Attention(nnx.Module):
    """Multi-head dot-product attention (Vaswani et al., arXiv:1706.03762, section 3.2)."""

    def __init__(self, shape: StackShape, *, rngs: nnx.Rngs) -> None:
        width, heads, head = shape.width, shape.heads, shape.head_width
        self._keep = shape.compute.keep
        inward = fan_in_uniform(width)
        outward = fan_in_uniform(width, gain=1.0 / math.sqrt(2.0 * shape.depth))
        self.query = nnx.Param(inward(rngs.params(), (width, heads, head)))
        self.key = nnx.Param(inward(rngs.params(), (width, heads, head)))
        self.value = nnx.Param(inward(rngs.params(), (width, heads, head)))
        self.output = nnx.Param(outward(rngs.params(), (heads, head, width)))

    def __call__(
        self, inputs: Float[Array, "b length width"], mask: Bool[Array, "length length"] | None
    ) -> Float[Array, "b length width"]:
        """Return what each position gathers from the positions that `mask` lets it see."""
        query = self._project(self.query, inputs)
        key = self._project(self.key, inputs)
        value = self._project(self.value, inputs)
        scores = jnp.einsum("bqhe,bkhe->bhqk", wide(query), wide(key))
        scores = scores / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = jnp.where(mask[None, None], scores, jnp.finfo(scores.dtype).min)
        seen = self._keep(jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores), wide(value)))
        output = constrain(self.output[...], "heads", None, None)
        seen = constrain(seen, "batch", None, "heads", None)
        return jnp.einsum("bqhe,hew->bqw", wide(seen), output)

    def _project(
        self, kernel: nnx.Param, inputs: Float[Array, "b length width"]
    ) -> Float[Array, "b length heads head"]:
        # Gathered over fsdp where it is used, layer by layer; split over heads all along.
        gathered = constrain(kernel[...], None, "heads", None)
        projected = self._keep(jnp.einsum("blw,whe->blhe", inputs, gathered))
        return constrain(projected, "batch", None, "heads", None)


class FeedForward(nnx.Module):
    """Two matrices with tanh-approximated gelu between them."""

    def __init__(self, shape: StackShape, *, rngs: nnx.Rngs) -> None:
        self._keep = shape.compute.keep
        inward = fan_in_uniform(shape.width)
        outward = fan_in_uniform(shape.hidden, gain=1.0 / math.sqrt(2.0 * shape.depth))
        self.up = nnx.Param(inward(rngs.params(), (shape.width, shape.hidden)))
        self.down = nnx.Param(outward(rngs.params(), (shape.hidden, shape.width)))

    def __call__(self, inputs: Float[Array, "b length width"]) -> Float[Array, "b length width"]:
        """Transform each position on its own."""
        up = constrain(self.up[...], None, "hidden")
        down = constrain(self.down[...], "hidden", None)
        hidden = self._keep(jax.nn.gelu(inputs @ up))
        return wide(constrain(hidden, "batch", None, "hidden")) @ down


class Block(nnx.Module):
    """Attention and feed-forward, each on a normalized copy, each added to the stream."""

    def __init__(self, shape: StackShape, *, rngs: nnx.Rngs) -> None:
        self._keep = shape.compute.keep
        self.attention_norm = nnx.RMSNorm(shape.width, rngs=rngs)
        self.attention = Attention(shape, rngs=rngs)
        self.feed_forward_norm = nnx.RMSNorm(shape.width, rngs=rngs)
        self.feed_forward = FeedForward(shape, rngs=rngs)

    def __call__(
        self,
        stream: Float[Array, "b length width"],
        mask: Bool[Array, "length length"] | None,
        dropout: Dropout,
    ) -> Float[Array, "b length width"]:
        """Return the stream with both contributions added."""
        attended = self.attention(self.attention_norm(wide(stream)), mask)
        stream = self._keep(wide(stream) + dropout(attended, 0))
        stream = constrain(stream, "batch", None, None)
        fed = self.feed_forward(self.feed_forward_norm(wide(stream)))
        stream = self._keep(wide(stream) + dropout(fed, 1))
        return constrain(stream, "batch", None, None)


@dataclass(frozen=True)
class Dropout:
    """Drop a share of activations, drawn for each example from its own key."""

    rate: float
    keys: Key[Array, " b"] | None

    def __call__(self, activations: Float[Array, "b ..."], place: int) -> Float[Array, "b ..."]:
        """Drop activations; `place` tells the uses of one key apart."""
        if self.keys is None or self.rate == 0.0:
            return activations
        bits = jax.vmap(
            lambda key: jax.random.bits(
                jax.random.fold_in(key, place), activations.shape[1:], jnp.uint16
            )
        )(self.keys)
        # Integers compare alike everywhere; a float threshold could not promise that.
        kept = bits >= jnp.uint16(round(self.rate * 2**16))
        return jnp.where(kept, activations / (1.0 - self.rate), 0.0)

    def layer(self, index: Array) -> Dropout:
        """Return the dropout of one layer."""
        if self.keys is None:
            return self
        return Dropout(self.rate, jax.vmap(lambda key: jax.random.fold_in(key, index))(self.keys))


@dataclass(frozen=True)
class Stack:
    """Blocks of one shape, their parameters stacked along a leading layer dimension."""

    shape: StackShape
    block: Blueprint

    def init(self, key: Key[Array, ""]) -> Tree:
        """Draw every block from its own key."""
        return jax.vmap(self.block.init)(jax.random.split(key, self.shape.depth))

    def __call__(
        self,
        parameters: Tree,
        stream: Float[Array, "b length width"],
        mask: Bool[Array, "length length"] | None,
        dropout: Dropout,
    ) -> Float[Array, "b length width"]:
        """Run the blocks one after the other; backward recomputes inside each (remat)."""

        @jax.checkpoint
        def step(
            carried: Float[Array, "b length width"], layer: tuple[Tree, Array]
        ) -> tuple[Float[Array, "b length width"], None]:
            module = self.block.merge(layer[0])
            return module(carried, mask, dropout.layer(layer[1])), None

        layers = jnp.arange(self.shape.depth, dtype=jnp.uint32)
        return jax.lax.scan(step, stream, (parameters, layers))[0]


def stack(shape: StackShape) -> Stack:
    """Build a stack of blocks."""
    return Stack(shape, blueprint(lambda rngs: Block(shape, rngs=rngs)))
