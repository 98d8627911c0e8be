"""A vision transformer over square patches (Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from anh_jax.errors import ConfigError
from anh_jax.experiment_choices import VisionTransformer
from anh_jax.models.axes import AxisNames, constrain
from anh_jax.models.compute import FLOAT32, Compute, wide
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.model import Model, parameter_tensors
from anh_jax.models.modules import blueprint
from anh_jax.models.transformer import STACK_AXES, Dropout, StackShape, stack
from anh_jax.program.tree import Tree

_AXES: dict[str, AxisNames] = {
    **STACK_AXES,
    "ends/patches": (None, "embed"),
    "ends/positions": (None, "embed"),
    "ends/head": ("embed", None),
}


class Ends(nnx.Module):
    """What lies before and after the blocks: patch embedding, positions, norm and head."""

    def __init__(
        self, *, patches: int, pixels: int, width: int, classes: int, rngs: nnx.Rngs
    ) -> None:
        self.patches = nnx.Param(fan_in_uniform(pixels)(rngs.params(), (pixels, width)))
        self.positions = nnx.Param(fan_in_uniform(width)(rngs.params(), (patches, width)))
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Param(fan_in_uniform(width)(rngs.params(), (width, classes)))

    def embed(self, patches: Float[Array, "b patches pixels"]) -> Float[Array, "b patches width"]:
        """Return the stream that enters the blocks."""
        return patches @ self.patches[...] + self.positions[...][None]

    def classify(self, stream: Float[Array, "b patches width"]) -> Float[Array, "b classes"]:
        """Return logits from the mean over the patches."""
        return jnp.mean(self.norm(stream), axis=1) @ self.head[...]


def vision_transformer(
    config: VisionTransformer, image_shape: tuple[int, ...], compute: Compute = FLOAT32
) -> Model:
    """Build the transformer for images of shape (height, width) or (height, width, channels).

    Raises:
        ConfigError: patches do not tile the image, or heads do not divide the width.
    """
    if len(image_shape) not in (2, 3) or any(n % config.patch_size for n in image_shape[:2]):
        raise ConfigError(
            f"model.patch_size: patches of {config.patch_size} do not tile images of shape"
            f" {image_shape}; choose a divisor of height and width"
        )
    count = math.prod(n // config.patch_size for n in image_shape[:2])
    pixels = math.prod(image_shape) // count
    shape = StackShape(config.width, config.depth, config.heads, config.mlp_width, compute)
    blocks = stack(shape)
    ends = blueprint(
        lambda rngs: Ends(
            patches=count, pixels=pixels, width=config.width, classes=config.classes, rngs=rngs
        )
    )

    def init(key: Key[Array, ""]) -> Tree:
        return {
            "blocks": blocks.init(jax.random.fold_in(key, 0)),
            "ends": ends.init(jax.random.fold_in(key, 1)),
        }

    def apply(
        parameters: Tree, examples: Mapping[str, Array], *, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b classes"]:
        module = ends.merge(parameters["ends"])
        images = examples["image"].astype(jnp.float32)
        stream = compute.keep(module.embed(_patches(images, config.patch_size)))
        stream = constrain(stream, "batch", None, None)
        stream = blocks(parameters["blocks"], stream, None, Dropout(config.dropout, keys))
        return module.classify(wide(stream))

    return Model("vision_transformer", parameter_tensors(init, _AXES), init, apply)


def _patches(
    images: Float[Array, "b height width ..."], size: int
) -> Float[Array, "b patches pixels"]:
    batch, height, width, *channels = images.shape
    rows, columns, depth = height // size, width // size, math.prod(channels)
    tiles = images.reshape(batch, rows, size, columns, size, depth)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, size * size * depth)
