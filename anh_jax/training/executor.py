"""Runs a contract's programs on one mesh: what the trainer and the auditor share.

The gradient of a step may be computed in microbatches: every output of the gradient program is a
sum over examples, so the sums of the parts are the sums of the whole, up to rounding
(docs/protocol.md, "Programs").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anh_jax.program.load import load_program
from anh_jax.program.signature import StoredProgram
from anh_jax.training.state import State, gradient_part, moved, moving_part, seed_words

Tree = dict[str, Any]
Examples = Mapping[str, jax.Array]


class Executor:
    """The five programs of a contract, loaded for one mesh.

    `constants` is the contract's table, float32[steps, constants per step].
    """

    def __init__(
        self, programs: Mapping[str, StoredProgram], constants: np.ndarray, mesh: Mesh
    ) -> None:
        self._constants = constants
        self._init = load_program(programs["init"], mesh)
        self._gradient = load_program(programs["gradient"], mesh)
        self._scalars = load_program(programs["scalars"], mesh)
        # The old state is dead once update has run: donating it halves the state's memory.
        self._update = load_program(programs["update"], mesh, donate=(0,))
        self._evaluate = load_program(programs["evaluate"], mesh)
        self._add = jax.jit(lambda left, right: jax.tree.map(jnp.add, left, right))

    def initial_state(self, seed: int) -> State:
        """Return state 0, drawn by the contract's init program from a 64-bit seed."""
        return self._init(seed_words(seed))

    def gradient(self, state: State, pieces: Sequence[Examples]) -> Tree:
        """Return the sums of gradients, forward statistics, loss and weight over all pieces."""
        seen = gradient_part(state)
        total = self._gradient(seen, pieces[0], state["key"])
        for piece in pieces[1:]:
            total = self._add(total, self._gradient(seen, piece, state["key"]))
        return total

    def scalars(self, outputs: Tree) -> Tree:
        """Return what no microbatch can know: the global norm, the finite flag, the weight."""
        return self._scalars(outputs)

    def update(self, state: State, outputs: Tree, scalars: Tree, step: int) -> State:
        """Return the state after `step`, counted from 1; the old state's buffers are given up."""
        constants = self._constants[step - 1]
        updated = self._update(moving_part(state), outputs["gradient"], scalars, constants)
        return moved(state, updated)

    def evaluate(self, parameters: Mapping[str, Any], examples: Examples) -> Tree:
        """Return counts of right answers and of all answers, and the summed loss."""
        return self._evaluate(parameters, examples)
