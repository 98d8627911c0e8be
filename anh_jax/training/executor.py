"""Runs a contract's programs on one mesh: what the trainer and the auditor share.

The gradient of a step may be computed in microbatches: every output of the gradient program is a
sum over examples, so the sums of the parts are the sums of the whole, up to rounding
(docs/protocol.md, "Programs").
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anh_jax.errors import ProgramError
from anh_jax.program.load import load_program
from anh_jax.program.signature import StoredProgram

State = dict[str, Any]
Tree = dict[str, Any]


class Executor:
    """The five programs of a contract, loaded and compiled for one mesh.

    `constants` is the contract's table, float32[steps, constants per step]; `microbatch` the
    examples per call of gradient, or None for a whole batch at once.
    """

    def __init__(
        self,
        programs: Mapping[str, StoredProgram],
        constants: np.ndarray,
        mesh: Mesh,
        *,
        microbatch: int | None = None,
    ):
        self.mesh = mesh
        self._constants = constants
        self._microbatch = microbatch
        self._init = load_program(programs["init"], mesh)
        self._gradient = load_program(programs["gradient"], mesh)
        self._scalars = load_program(programs["scalars"], mesh)
        # The old state is dead once update has run: donating it halves the state's memory.
        self._update = load_program(programs["update"], mesh, donate=(0,))
        self._evaluate = load_program(programs["evaluate"], mesh)
        self._add = jax.jit(lambda left, right: jax.tree.map(jnp.add, left, right))

    def initial_state(self, seed: int) -> State:
        """Return state 0, drawn by the contract's init program from a 64-bit seed."""
        words = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
        return self._init(words)

    def gradient(self, state: State, examples: Mapping[str, jax.Array]) -> Tree:
        """Return the sums of gradients, forward statistics, loss and weight over the examples."""
        arguments = {"parameters": state["parameters"], "step": state["step"]}
        size = next(iter(examples.values())).shape[0]
        part = self._microbatch or size
        if size % part:
            raise ProgramError(
                f"plan.microbatch: {part} does not divide the batch of {size}; choose a divisor"
            )
        total: Tree | None = None
        for start in range(0, size, part):
            piece = examples
            if part != size:
                piece = {name: value[start : start + part] for name, value in examples.items()}
            outputs = self._gradient(arguments, piece, state["key"])
            total = outputs if total is None else self._add(total, outputs)
        assert total is not None
        return total

    def scalars(self, outputs: Tree) -> Tree:
        """Return what no microbatch can know: the global norm, the finite flag, the weight."""
        return self._scalars(outputs)

    def update(self, state: State, outputs: Tree, scalars: Tree, step: int) -> State:
        """Return the state after `step`, counted from 1; the old state's buffers are given up."""
        moving = {name: state[name] for name in ("parameters", "optimizer", "step")}
        constants = self._constants[step - 1]
        moved = self._update(moving, outputs["gradient"], scalars, constants)
        return {"key": state["key"], **moved}

    def evaluate(self, state: State, examples: Mapping[str, jax.Array]) -> Tree:
        """Return counts of right answers and of all answers, and the summed loss."""
        return self._evaluate(state["parameters"], examples)
