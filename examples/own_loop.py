"""A plain Flax loop, made attested: `open_run`, `step` and `finish` are the only lines of ours.

Run it, then: anh prove runs/own-loop && anh verify runs/own-loop/run.proof \
    --policy runs/own-loop/policy.toml
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import anh_jax


class Classifier(nnx.Module):
    """Two layers over the 64 pixels of a digit."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the ten logits of one image."""
        return self.out(nnx.relu(self.hidden(image.reshape(-1))))


def main(directory: Path) -> None:
    """Train for the contract's steps and sign each of them."""
    config = Path(__file__).parent / "own_loop.yaml"
    model = anh_jax.model_from_nnx("digits", Classifier, lambda module, x: module(x["image"]))
    contract = anh_jax.prepare(anh_jax.load_experiment(config), model=model)
    run = anh_jax.open_run(contract, directory)
    parameters = run.initial_state["parameters"]
    optimizer = optax.sgd(0.1, momentum=0.9)
    memory = optimizer.init(parameters)

    def loss_of(parameters, images, labels):
        logits = model.apply(parameters, {"image": images}, keys=None)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    @jax.jit
    def step_of(parameters, memory, images, labels):
        loss, gradient = jax.value_and_grad(loss_of)(parameters, images, labels)
        mean = jax.tree.map(lambda x: x / len(labels), gradient)
        updates, memory = optimizer.update(mean, memory)
        return loss, gradient, optax.apply_updates(parameters, updates), memory

    for step in run.steps:
        batch = run.batch(step)
        loss, gradient, parameters, memory = step_of(
            parameters, memory, jnp.asarray(batch["image"]), jnp.asarray(batch["label"])
        )
        state = {"parameters": parameters, "optimizer": {"velocity": memory[0].trace}}
        run.step(step, gradient=gradient, state=state, loss=loss)
    print(run.finish())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-loop"))
