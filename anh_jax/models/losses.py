"""Losses: from predictions to one number per example, and counts of right answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32


@dataclass(frozen=True)
class ExampleLosses:
    """Hold what a loss says of each example of a batch.

    Attributes:
        loss: nats per example; the gradient's loss is its weighted sum.
        correct: right answers of each example.
        total: answers of each example.
        statistics: forward statistics of each example by name, committed as weighted sums.
    """

    loss: Float[Array, " b"]
    correct: UInt32[Array, " b"]
    total: UInt32[Array, " b"]
    statistics: Mapping[str, Float[Array, "b ..."]] = field(default_factory=dict)


Loss: TypeAlias = "Callable[[Any, Mapping[str, Array]], ExampleLosses]"


def softmax_cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
    """Return the cross entropy of logits [b, classes] against `label`, an integer per example.

    `label_smoothing` spreads that share of the probability over all classes.
    """

    def loss(logits: Float[Array, "b classes"], examples: Mapping[str, Array]) -> ExampleLosses:
        labels = examples["label"].astype(jnp.int32)
        return ExampleLosses(
            _cross_entropy(logits, labels, label_smoothing),
            _right(logits, labels),
            jnp.ones(labels.shape, jnp.uint32),
        )

    return loss


def next_token_cross_entropy() -> Loss:
    """Return the cross entropy of logits [b, length, vocabulary] against the token that follows.

    `tokens` has length + 1 entries per example. An example's loss is the mean over its positions.
    """

    def loss(
        logits: Float[Array, "b length vocabulary"], examples: Mapping[str, Array]
    ) -> ExampleLosses:
        following = examples["tokens"].astype(jnp.int32)[:, 1:]
        count, length = following.shape
        return ExampleLosses(
            jnp.mean(_cross_entropy(logits, following, 0.0), axis=1),
            jnp.sum(_right(logits, following), axis=1, dtype=jnp.uint32),
            jnp.full((count,), length, jnp.uint32),
        )

    return loss


def _cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], smoothing: float
) -> Float[Array, ...]:
    # A mask and a sum, not a gather: its gradient is elementwise, so splits like the logits do.
    log_probabilities = jax.nn.log_softmax(logits)
    classes = logits.shape[-1]
    target = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / classes
    return -jnp.sum(target * log_probabilities, axis=-1)


def _right(logits: Float[Array, "... classes"], labels: Int[Array, ...]) -> UInt32[Array, ...]:
    return (jnp.argmax(logits, axis=-1).astype(jnp.int32) == labels).astype(jnp.uint32)
