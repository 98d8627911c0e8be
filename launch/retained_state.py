"""A state read back from a retained training checkpoint, without recomputing anything."""

from pathlib import Path
from typing import Any

from anh_jax.program.signature import Tensor
from anh_jax.program.storage import read_program
from anh_jax.program.tensors import abstract, sharding_of
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.training.mesh import make_mesh
from attest.contract import Contract
from launch.errors import CommandError
from launch.step_numbers import retained_steps

# Reading keeps everything: a manager that may keep fewer would remove the others.
_KEEP_ALL = 1 << 30


def read_state(directory: Path, step: int) -> dict[str, Any]:
    """Return the state after `step`, whole on one device.

    Shapes come from the contract's init program, so that nothing of the trainer's Python is needed.
    Raises CommandError where no checkpoint of that step is retained.
    """
    import jax

    run = RunDirectory.open(directory)
    kept = retained_steps(run)
    if step not in kept:
        have = ", ".join(map(str, kept)) or "none"
        raise CommandError(
            f"{run.checkpoints}: no training checkpoint of step {step} is retained (there are: "
            f"{have}); name one of those, or let an audit replay the step"
        )
    contract = Contract.from_bytes(run.contract_bytes())
    stored = read_program(run.programs, "init", id=contract.programs.init)
    mesh = make_mesh()

    def whole(tensor: Tensor) -> jax.ShapeDtypeStruct:
        shape = abstract(tensor.shape, tensor.dtype)
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding_of(mesh, ()))

    shapes = jax.tree.map(
        whole, stored.signature.output_tree(), is_leaf=lambda node: isinstance(node, Tensor)
    )
    checkpoints = TrainingCheckpoints(run.checkpoints, keep=_KEEP_ALL)
    try:
        return checkpoints.restore(step, shapes).state
    finally:
        checkpoints.close()
