"""A small convolutional net with max pooling over images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from anh_jax.errors import ConfigError
from anh_jax.experiment_choices import Convolution
from anh_jax.models.axes import AxisNames, constrain
from anh_jax.models.compute import FLOAT32, Compute, wide
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.model import Model, parameter_tensors
from anh_jax.models.modules import blueprint
from anh_jax.program.tree import Tree

_KERNEL, _POOL = 3, 2


class ConvolutionalNet(nnx.Module):
    """Per stage a 3x3 convolution, ReLU and 2x2 max pooling; one linear layer at the end.

    Pooling and ReLU have ties, where a derivative jumps: the checks have to live with that.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        features: int,
        classes: int,
        compute: Compute,
        rngs: nnx.Rngs,
    ) -> None:
        self._compute = compute
        self.stages = nnx.List(
            nnx.Conv(
                inputs,
                outputs,
                (_KERNEL, _KERNEL),
                kernel_init=fan_in_uniform(inputs * _KERNEL * _KERNEL),
                rngs=rngs,
            )
            for inputs, outputs in zip(channels[:-1], channels[1:], strict=True)
        )
        self.head = nnx.Linear(features, classes, kernel_init=fan_in_uniform(features), rngs=rngs)

    def __call__(
        self, images: Float[Array, "b height width channels"]
    ) -> Float[Array, "b classes"]:
        """Return logits."""
        keep = self._compute.keep
        activations = constrain(keep(images), "batch", None, None, None)
        for stage in self.stages:
            shown = nnx.relu(stage(wide(activations)))
            activations = constrain(keep(_pooled(shown)), "batch", None, None, None)
        return self.head(wide(activations).reshape(activations.shape[0], -1))


def convolution(
    config: Convolution, image_shape: tuple[int, ...], compute: Compute = FLOAT32
) -> Model:
    """Build the net for images of shape (height, width) or (height, width, channels).

    Raises:
        ConfigError: height or width is not halved evenly by every stage's pooling.
    """
    shrink = _POOL ** len(config.channels)
    if len(image_shape) not in (2, 3) or any(n % shrink for n in image_shape[:2]):
        raise ConfigError(
            f"model.channels: {len(config.channels)} stages halve images as often, which"
            f" {image_shape} does not allow; choose fewer stages"
        )
    height, width, *depth = image_shape
    channels = (math.prod(depth), *config.channels)
    features = (height // shrink) * (width // shrink) * channels[-1]
    plan = blueprint(
        lambda rngs: ConvolutionalNet(
            channels, features=features, classes=config.classes, compute=compute, rngs=rngs
        )
    )

    def apply(
        parameters: Tree, examples: Mapping[str, Array], *, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b classes"]:
        images = examples["image"].astype(jnp.float32)
        shaped = images.reshape(images.shape[0], height, width, channels[0])
        return plan.merge(parameters)(shaped)

    return Model("convolution", parameter_tensors(plan.init, _AXES), plan.init, apply)


def _pooled(
    activations: Float[Array, "b height width channels"],
) -> Float[Array, "b rows columns channels"]:
    """Return the largest of each square; ties share the gradient.

    Written as a maximum over axes: the gradient of a window reduction is lowered otherwise on
    every platform, so that no stored program could hold it.
    """
    batch, height, width, channels = activations.shape
    squares = (batch, height // _POOL, _POOL, width // _POOL, _POOL, channels)
    return jnp.max(activations.reshape(squares), axis=(2, 4))


# Classes rarely divide by a device count; the features do.
_AXES: dict[str, AxisNames] = {"head/kernel": ("embed", None)}
