"""Small gradient programs for the tests of spreads, as stored programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.program.export import export_program
from anh_jax.program.signature import BATCH, StoredProgram, Tensor
from anh_jax.program.tensors import KEY_DTYPE
from anh_jax.program.tree import Tree

FEATURES, WIDTH = 6, 12
Loss = Callable[[Tree, jax.Array, jax.Array], Any]


@dataclass(frozen=True)
class Case:
    """A stored gradient with a state, the pieces of a batch and a key to call it with."""

    stored: StoredProgram
    state: Tree
    pieces: tuple[Mapping[str, Any], ...]
    key: Any


def case(
    loss: Loss, parameters: Mapping[str, np.ndarray], *, batch: int = 20, pieces: int = 1
) -> Case:
    """Export the gradient of `loss(parameters, x, uniform)`, summed over a batch.

    `x` are `FEATURES` numbers an example, the last one always 0; `uniform` are random numbers.
    """

    def gradient(state: Tree, examples: Tree, key: Any) -> Tree:
        uniform = jax.random.uniform(key, examples["x"].shape)

        def total(trained: Tree) -> Any:
            return jnp.sum(examples["weight"] * loss(trained, examples["x"], uniform))

        value, slopes = jax.value_and_grad(total)(state["parameters"])
        weight = jnp.sum(examples["weight"])
        return {"gradient": slopes, "statistics": {}, "loss": value, "weight": weight}

    tensors = {name: Tensor(x.shape, "float32") for name, x in parameters.items()}
    stored = export_program(
        "gradient",
        gradient,
        {
            "state": {"parameters": tensors, "step": Tensor((), "uint32")},
            "examples": {
                "id": Tensor((BATCH,), "uint32"),
                "weight": Tensor((BATCH,), "float32"),
                "x": Tensor((BATCH, FEATURES), "float32"),
            },
            "key": Tensor((), KEY_DTYPE),
        },
    )
    x = np.random.default_rng(5).normal(size=(batch, FEATURES)).astype(np.float32)
    x[:, -1] = 0
    rows = [slice(i * batch // pieces, (i + 1) * batch // pieces) for i in range(pieces)]
    cut = tuple(
        {
            "id": np.arange(batch, dtype=np.uint32)[part],
            "weight": np.ones(batch, np.float32)[part],
            "x": x[part],
        }
        for part in rows
    )
    state = {"parameters": dict(parameters), "step": np.uint32(3)}
    return Case(stored, state, cut, jax.random.key(0, impl="threefry2x32"))


def perceptron(**cut: int) -> Case:
    """Return a perceptron with one hidden unit that never fires and one input that is always 0."""
    random = np.random.default_rng(3)
    first = random.normal(size=(FEATURES, WIDTH)).astype(np.float32)
    parameters = {
        "first": first,
        "bias": np.where(np.arange(WIDTH) == 4, -100.0, 0.1).astype(np.float32),
        "second": random.normal(size=(WIDTH, 3)).astype(np.float32),
    }

    def loss(trained: Tree, x: jax.Array, uniform: jax.Array) -> Any:
        hidden = jax.nn.relu(x @ trained["first"] + trained["bias"])
        logits = hidden @ trained["second"]
        return jax.nn.logsumexp(logits, axis=-1) - logits[:, 0]

    return case(loss, parameters, **cut)
