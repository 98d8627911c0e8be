"""States that honest executors are tried at: cold, warm, after a loss spike, before padding alone.

They are drawn from seeds that no calibration used (5000 and up).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from anh_jax.redteam.bench import RedTeamBench
from anh_jax.training.state import State

FIRST_SEED = 5000
_WARM = 10
_SPIKE = 0.5


@dataclass(frozen=True)
class NamedState:
    """A state of some kind, under the number of its seed; its step says which batch comes next."""

    name: str
    state: State


def honest_states(bench: RedTeamBench, turn: int) -> Iterator[NamedState]:
    """Yield states of one seed; those before padding only where a batch holds nothing else."""
    cold = bench.initial_state(FIRST_SEED + turn)
    yield NamedState(f"cold {turn}", cold)
    warm = _trained(bench, cold, min(_WARM, bench.steps - 1))
    yield NamedState(f"warm {turn}", warm)
    yield NamedState(f"spike {turn}", _spiked(warm, turn))
    for step in padding_steps(bench)[:1]:
        before = _trained(bench, cold, step - 1)
        yield NamedState(f"padding {turn}", before)
        yield NamedState(f"spiked padding {turn}", _spiked(before, turn))


def padding_steps(bench: RedTeamBench) -> tuple[int, ...]:
    """Return the steps whose batch moves nothing: all of its examples are padding."""

    def find() -> tuple[int, ...]:
        state, found = bench.initial_state(), list[int]()
        for step in range(1, bench.steps + 1):
            gradient = bench.gradient(state, bench.piece(step))["gradient"]
            if not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient)):
                found.append(step)
        return tuple(found)

    return bench.once("padding steps", find)


def _trained(bench: RedTeamBench, state: State, steps: int) -> State:
    state = {**state}
    for step in range(1, steps + 1):
        state = bench.update(state, bench.gradient(state, bench.piece(step)), step)
    return state


def _spiked(state: State, turn: int) -> State:
    random = np.random.default_rng(FIRST_SEED + turn)

    def shaken(weights: jax.Array) -> jax.Array:
        noise = 1 + _SPIKE * random.standard_normal(weights.shape)
        return weights * noise.astype(np.float32)

    return {**state, "parameters": jax.tree.map(shaken, state["parameters"])}
