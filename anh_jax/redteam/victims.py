"""What the red team attacks where nothing else is named: small contracts with known weak spots.

The first is cut from the digits configuration; the perceptron with ReLU has units that are off for
every image from the start, which no other shipped model has. The padded set has rows that carry an
ignored label, and by its order one batch of nothing else.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from anh_jax.data.order import examples_for_step
from anh_jax.data.sources import Source, load_source
from anh_jax.experiment import Experiment, load_experiment
from anh_jax.experiment_choices import Digits, Holdout
from anh_jax.models.initializers import fan_in_uniform
from anh_jax.models.losses import ExampleLosses, Loss, softmax_cross_entropy
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
# Row and column means stand in for a matrix of squares: the rule that is not elementwise.
ADAFACTOR = DIGITS.replace(
    "{name: adamw, learning_rate: 4e-3, weight_decay: 1e-2}",
    "{name: adafactor, learning_rate: 4e-3, weight_decay: 1e-2, factored_from: 8}",
)
RELU = "model={name: import, import: 'anh_jax.redteam.victims:relu_perceptron'}"
# A run that is audited in seconds: what makes a contract of any size a victim.
_SHORT = 24
# The step of the padded set that holds nothing else.
PADDING_STEP = 12


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


def padded(*, seed: int, batch_size: int) -> tuple[str, ...]:
    """Return the changes by which a contract on digits takes the padded set and ignores padding."""
    options = f"{{seed: {seed}, batch_size: {batch_size}}}"
    return (
        f"data={{name: import, import: '{__name__}:padded_digits', options: {options}}}",
        f"loss={{name: import, import: '{__name__}:ignoring_cross_entropy'}}",
    )


def padded_text() -> str:
    """Return the first configuration on padded digits."""
    lines = [line for line in DIGITS.splitlines() if not line.startswith(("data:", "loss:"))]
    changes = (change.replace("=", ": ", 1) for change in padded(seed=0, batch_size=48))
    return "\n".join([*lines, *changes, ""])


def padded_digits(*, seed: int, batch_size: int) -> Source:
    """Return digits whose step 12 is padding alone and whose step 11 is half of it, by the order.

    A row of padding is an image of zeros with label -1, as data that are cut into whole batches
    beforehand have them.
    """
    whole = load_source(Digits(holdout=Holdout(fraction=0.2)))
    train = {name: array.copy() for name, array in whole.train.items()}
    count = len(train["label"])
    before, alone = (
        examples_for_step(seed, step, batch_size, count)
        for step in (PADDING_STEP - 1, PADDING_STEP)
    )
    rows = np.concatenate([alone, before[: batch_size // 2]])
    train["image"][rows] = 0.0
    train["label"][rows] = -1
    return Source(train, whole.holdout, f"digits, {len(np.unique(rows))} rows of padding")


def ignoring_cross_entropy() -> Loss:
    """Return the cross entropy that leaves out examples with a negative label."""
    entropy = softmax_cross_entropy()

    def loss(logits: jax.Array, examples: Mapping[str, jax.Array]) -> ExampleLosses:
        kept = examples["label"] >= 0
        found = entropy(logits, {**examples, "label": jnp.where(kept, examples["label"], 0)})
        return ExampleLosses(
            jnp.where(kept, found.loss, 0.0),
            jnp.where(kept, found.correct, 0),
            jnp.where(kept, found.total, 0),
        )

    return loss


def victim(config: Path, changes: tuple[str, ...] = ()) -> Experiment:
    """Read a configuration as a loop of one's own trains it, cut to a few steps."""
    told = load_experiment(config, changes)
    steps = min(told.training.steps, _SHORT)
    cut = (f"training.steps={steps}", "plan.kind=native", "plan.microbatch=null",
           "evaluation.every_steps=0")  # fmt: skip
    return load_experiment(config, (*changes, *cut))
