"""Canary runs: faults planted at steps that only their maker knows, to try auditors with.

A run with a fault is trained, signed and logged like any other. An auditor whose sample holds a
faulty step must refute it; one who passes it has not computed it. So that the maker cannot invent
faults afterwards, they are committed to before the final record, as the nonce of an intent, which
looks like any announced audit.
"""

import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from anh_jax.errors import ConfigError
from anh_jax.training.executor import Examples, Executor, Tree
from anh_jax.training.state import State
from anh_jax.workbench import Workbench

SALT_BYTES = 32


def choose_faults(*, steps: int, count: int) -> tuple[int, ...]:
    """Choose steps to plant faults at; never the last one, which every auditor looks at.

    Raises ConfigError where the run has too few steps.
    """
    if not 1 <= count < steps:
        raise ConfigError(f"faults: plant between 1 and {steps - 1} in a run of {steps} steps")
    return tuple(sorted(random.SystemRandom().sample(range(1, steps), count)))


def planted(faults: Sequence[int]) -> Any:
    """Return a maker of workbenches whose executor errs at the faulty steps alone."""

    def make(*arguments: Any, **named: Any) -> Workbench:
        bench = Workbench(*arguments, **named)
        bench.executor = _Faulty(bench.executor, frozenset(faults))
        return bench

    return make


class _Faulty(Executor):
    """The contract's programs; at a faulty step the gradient points the other way.

    What follows from it (norm, update, digests) is computed from the wrong gradient, as it would be
    by a trainer who commits one. No numerics class takes it for rounding.
    """

    def __init__(self, honest: Executor, faults: frozenset[int]) -> None:
        self.__dict__.update(honest.__dict__)
        self._faults = faults

    def gradient(self, state: State, pieces: Sequence[Examples]) -> Tree:
        """Return the outputs of `gradient`, or at a faulty step what is to be found out."""
        outputs = super().gradient(state, pieces)
        if int(state["step"]) + 1 not in self._faults:
            return outputs
        return {**outputs, "gradient": jax.tree.map(jnp.negative, outputs["gradient"])}
