"""What the red team attacks where nothing else is named: small contracts with known weak spots.

The first is cut from the digits configuration; the perceptron with ReLU has units that are off for
every image from the start, which no other shipped model has.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from anh_jax.experiment import Experiment, load_experiment
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.model import Model
from anh_jax.models.modules import model_from_nnx

# configs/digits.yaml with a perceptron, a batch that is no power of two, and a few steps.
DIGITS = """
model: {name: mlp, hidden: [24], classes: 10}
data: {name: digits, holdout: {fraction: 0.2}}
loss: {name: softmax_cross_entropy}
optimizer: {name: adamw, learning_rate: 4e-3, weight_decay: 1e-2}
training: {steps: 24, batch_size: 48, seed: 0}
properties: [{name: accuracy, numerator: 1, denominator: 10, margin: 3}]
"""
RELU = "model={name: import, import: 'anh_jax.redteam.victims:relu_perceptron'}"
# A run that is audited in seconds: what makes a contract of any size a victim.
_SHORT = 24


class _Perceptron(nnx.Module):
    """One hidden layer with ReLU over flattened images."""

    def __init__(self, pixels: int, *, hidden: int, classes: int, rngs: nnx.Rngs) -> None:
        init = fan_in_uniform(pixels)
        self.hidden = nnx.Linear(pixels, hidden, kernel_init=init, rngs=rngs)
        self.out = nnx.Linear(hidden, classes, kernel_init=fan_in_uniform(hidden), rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(image.reshape(-1))))


def relu_perceptron(fields: Mapping[str, Any], *, hidden: int = 48, classes: int = 10) -> Model:
    """Build a perceptron of which some units are off for every image of non-negative pixels."""
    pixels = math.prod(fields["image"].shape)
    return model_from_nnx(
        "relu_perceptron",
        lambda rngs: _Perceptron(pixels, hidden=hidden, classes=classes, rngs=rngs),
        lambda module, example: module(example["image"]),
    )


def victim(config: Path, changes: tuple[str, ...] = ()) -> Experiment:
    """Read a configuration as a loop of one's own trains it, cut to a few steps."""
    told = load_experiment(config, changes)
    steps = min(told.training.steps, _SHORT)
    cut = (f"training.steps={steps}", "plan.kind=native", "plan.microbatch=null",
           "evaluation.every_steps=0")  # fmt: skip
    return load_experiment(config, (*changes, *cut))
