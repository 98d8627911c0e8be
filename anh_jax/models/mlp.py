"""A multilayer perceptron over flattened images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from anh_jax.experiment_choices import Mlp
from anh_jax.models.axes import AxisNames, constrain
from anh_jax.models.compute import FLOAT32, Compute, wide
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.model import Model, parameter_tensors
from anh_jax.models.modules import blueprint
from anh_jax.program.tree import Tree


class Perceptron(nnx.Module):
    """Linear layers with tanh-approximated gelu between them (no ties, no dead units)."""

    def __init__(self, sizes: tuple[int, ...], compute: Compute, *, rngs: nnx.Rngs) -> None:
        self._compute = compute
        self.layers = nnx.List(
            nnx.Linear(inputs, outputs, kernel_init=fan_in_uniform(inputs), rngs=rngs)
            for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def __call__(self, inputs: Float[Array, "b inputs"]) -> Float[Array, "b classes"]:
        """Return logits."""
        keep = self._compute.keep
        activations = constrain(keep(inputs), "batch", None)
        for layer in self.layers[:-1]:
            hidden = keep(jax.nn.gelu(layer(wide(activations))))
            activations = constrain(hidden, "batch", None)
        return self.layers[-1](wide(activations))


def mlp(config: Mlp, image_shape: tuple[int, ...], compute: Compute = FLOAT32) -> Model:
    """Build the perceptron for images of that shape."""
    sizes = (math.prod(image_shape), *config.hidden, config.classes)
    plan = blueprint(lambda rngs: Perceptron(sizes, compute, rngs=rngs))

    def apply(
        parameters: Tree, examples: Mapping[str, Array], *, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b classes"]:
        images = examples["image"].astype(jnp.float32)
        return plan.merge(parameters)(images.reshape(images.shape[0], sizes[0]))

    return Model("mlp", parameter_tensors(plan.init, _axes(len(sizes) - 1)), plan.init, apply)


def _axes(layers: int) -> dict[str, AxisNames]:
    axes: dict[str, AxisNames] = {
        f"layers/{index}/kernel": (None, "embed") for index in range(layers - 1)
    }
    # Classes rarely divide by a device count; the last hidden layer's units do.
    return {**axes, f"layers/{layers - 1}/kernel": ("embed", None)}
