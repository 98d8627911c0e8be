"""How a model keeps its activations: the one place where a numerics class reaches a model.

Models compute in float32 and *keep* what goes from one operator to the next: in bfloat16 an
activation is rounded where it is kept, and widened where it is used. So every sum (softmax, norms,
biases, the embedding's backward scatter) adds float32 numbers, and parameters stay float32. That
matrix products read bfloat16 operands is written into the stored program (program/class_form.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from attest.numerics_class import ClassRules


@dataclass(frozen=True)
class Compute:
    """Say in which dtype activations are kept, such as `float32`."""

    storage: str

    def keep(self, activations: Float[Array, ...]) -> Float[Array, ...]:
        """Round activations to the dtype they are kept in."""
        return activations.astype(self.storage)


FLOAT32 = Compute("float32")


def compute_of(rules: ClassRules) -> Compute:
    """Return how a class's models keep activations."""
    return FLOAT32 if rules.roundoff.storage == 2.0**-24 else Compute("bfloat16")


def wide(activations: Float[Array, ...]) -> Float[Array, ...]:
    """Return kept activations in float32, in which operators compute."""
    return activations.astype(jnp.float32)
