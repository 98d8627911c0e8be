"""The workbenches of an audit: one for each mesh that a run was trained on, made when needed.

A resumed attempt may run on another mesh than the one before it. An auditor in one process stands
in for any number of processes with as many devices, virtual ones on CPU.
"""

from typing import Any

import jax

from anh_jax.bounds.spread import SpreadEstimator
from anh_jax.bounds.step_check import StepCheck
from anh_jax.errors import ProgramError
from anh_jax.preparation import plan_digest
from anh_jax.training.state import State
from anh_jax.workbench import Materials, MeshSizes, Workbench
from attest.statements import Attempt, Genesis


class Benches:
    """The materials of a run, loaded for each mesh at its first use.

    `loaded` holds workbenches of these materials by mesh, which several audits may share.
    Raises ProgramError where the configuration's plan is not the one that genesis names: another
    microbatch gives other bits.
    """

    def __init__(
        self,
        materials: Materials,
        genesis: Genesis,
        *,
        loaded: dict[MeshSizes, Workbench] | None = None,
    ) -> None:
        if genesis.contract != materials.contract.id:
            raise ProgramError(
                f"contract.json: is contract {materials.contract.id[:16]}, genesis names "
                f"{genesis.contract[:16]}; restore it"
            )
        if plan_digest(materials.experiment) != genesis.plan:
            raise ProgramError(
                "config.yaml: its plan is not the one that genesis names; restore it"
            )
        self.materials = materials
        self._made = {} if loaded is None else loaded
        # Compiles when it is first asked, and serves every mesh.
        self._spreads = SpreadEstimator(
            materials.programs.stored["gradient"], materials.contract.numerics.rules
        )

    @property
    def native(self) -> bool:
        """Tell whether the trainer computed the programs with code of its own."""
        return self.materials.experiment.plan.kind == "native"

    def on(self, sizes: MeshSizes) -> Workbench:
        """Return the workbench of a mesh."""
        if sizes not in self._made:
            microbatch = self.materials.experiment.plan.microbatch
            self._made[sizes] = Workbench(self.materials, sizes, microbatch=microbatch)
        return self._made[sizes]

    def step_check(self, bench: Workbench) -> StepCheck:
        """Return the checks of a step within bounds, on the mesh of a workbench."""
        return StepCheck(bench, self._spreads)

    def of(self, attempt: Attempt) -> Workbench:
        """Return the workbench of an attempt's mesh."""
        mesh = attempt.mesh
        return self.on(MeshSizes(data=mesh.data, fsdp=mesh.fsdp, tensor=mesh.tensor))


def placed(bench: Workbench, tree: Any) -> State:
    """Return a state laid out as the programs of this mesh take it; bits stay as they are."""
    abstract = bench.abstract_state()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.device_put(tree, shardings)
