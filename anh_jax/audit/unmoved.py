"""The part of a state that no arithmetic touches: copied paths and counters.

Their values follow from the contract and the step alone, so another value in a committed state is
wrong on every machine.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.program.tree import Path, leaves_of, path_text
from anh_jax.training.state import State
from anh_jax.workbench import Materials


class Unmoved:
    """What the copied paths and counters of a run's states must hold.

    `first` is state 0 as the contract's init program draws it.
    """

    def __init__(self, materials: Materials, first: State) -> None:
        rules = materials.programs.rules
        self._copied: dict[Path, bytes] = {}
        self._counters: dict[Path, int] = {}
        for path, leaf in leaves_of(first).items():
            rule = rules[path_text(path)]
            if rule == "copied":
                self._copied[path] = _bits(leaf)
            elif rule == "counter":
                self._counters[path] = int(np.asarray(leaf))

    def faults(self, state: State, step: int) -> Iterator[str]:
        """Yield, in words, what is wrong with a committed state after `step` steps."""
        leaves = leaves_of(state)
        for path, bits in self._copied.items():
            if _bits(leaves[path]) != bits:
                yield f"{path_text(path)}: state {step} holds another value than init gives"
        for path, start in self._counters.items():
            if (found := int(np.asarray(leaves[path]))) != start + step:
                yield f"{path_text(path)}: state {step} counts {found}"


def _bits(leaf: jax.Array) -> bytes:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)).tobytes()
    return np.asarray(leaf).tobytes()
