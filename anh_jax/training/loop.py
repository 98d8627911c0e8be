"""The training loop, on one screen: dispatch step t, then look at step t - 1 while t computes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax

from anh_jax.training.executor import Executor, Tree
from anh_jax.training.state import State


@dataclass(frozen=True)
class StepBatch:
    """The examples of one step on the mesh, in microbatches, and the root committing them (hex)."""

    step: int
    pieces: tuple[dict[str, jax.Array], ...]
    root: str


@dataclass(frozen=True)
class CompletedStep:
    """A step whose arithmetic is done or under way: the state after it and what made that state.

    `seconds` is the time since the previous completed step was handed over.
    """

    step: int
    state: State
    outputs: Tree
    scalars: Tree
    batch: StepBatch
    seconds: float


@runtime_checkable
class Observer(Protocol):
    """Looks at every completed step; the state must not be kept after `after_step` returns."""

    def after_step(self, completed: CompletedStep) -> None:
        """Look at one completed step."""
        ...


@runtime_checkable
class StopRequest(Protocol):
    """Says, equally on every host, whether to stop after a step."""

    def __call__(self, step: int) -> bool:
        """Return whether the loop ends after `step`."""
        ...


@runtime_checkable
class BeforeUpdate(Protocol):
    """Looks at a step whose gradient is under way, while the state before it still exists."""

    def __call__(self, batch: StepBatch, state: State, outputs: Tree, scalars: Tree) -> None:
        """Look; what it waits for, the step waits for."""
        ...


def train(
    executor: Executor,
    state: State,
    batches: Iterator[StepBatch],
    observers: Sequence[Observer],
    stop: StopRequest,
    before_update: BeforeUpdate | None = None,
) -> State:
    """Take one step for each batch and return the last state that the observers saw.

    The observers see step t - 1 after the gradient of step t is dispatched and before its update,
    so the device computes while the host hashes and signs, and the update may donate the state.
    What observers start on the device then (digests) they should not wait for before the next
    step: until they return there is only that gradient for the device to compute.
    """
    previous: Any = None
    clock = time.perf_counter()

    def hand_over(completed: CompletedStep) -> bool:
        for observer in observers:
            observer.after_step(completed)
        return stop(completed.step)

    for batch in batches:
        outputs = executor.gradient(state, batch.pieces)
        if previous is not None and hand_over(previous):
            return state
        previous = None  # the update below gives the buffers of its state away
        scalars = executor.scalars(outputs)
        if before_update is not None:
            before_update(batch, state, outputs, scalars)
        state = executor.update(state, outputs, scalars, batch.step)
        now = time.perf_counter()
        previous = CompletedStep(batch.step, state, outputs, scalars, batch, now - clock)
        clock = now
    if previous is not None:
        hand_over(previous)
    return state
