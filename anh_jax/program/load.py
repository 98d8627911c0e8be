"""Runs a stored program on a mesh.

jax refuses its own `jax.export` files after about six months; bare StableHLO lives for years. So
this file exports a stub that has the program's signature, with the running jax, puts the stored
module in the stub's place, and jits the call. Before that it writes the executor's axis sizes into
the one logical mesh of the module. `stablehlo.py` and this file are the only ones that know jax's
private parts; `Exported.mlir_module_serialized` is the one used here.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jax.sharding import Mesh, NamedSharding

from anh_jax.errors import ProgramError
from anh_jax.program import module_checks, stablehlo
from anh_jax.program.arguments import ProgramTrees
from anh_jax.program.signature import AXES, BATCH, Leaf, ProgramSignature, StoredProgram
from anh_jax.program.tensors import KEY_DTYPE, abstract, sharding_of
from anh_jax.program.tree import Tree


class LoadedProgram:
    """A program compiled for one mesh, called with one tree for each argument of its signature.

    Attributes:
        signature: what it takes and gives.
        mesh: where it runs.
    """

    def __init__(self, stored: StoredProgram, mesh: Mesh, donate: Sequence[int] = ()) -> None:
        self.signature = stored.signature
        self.mesh = mesh
        self._trees = ProgramTrees(stored.signature)
        for leaf in (*self.signature.inputs, *self.signature.outputs):
            _check_divisible(self.signature, leaf, mesh)
        self._jitted = jax.jit(
            _named_call(stored.name, _replaced_stub(stored, mesh)),
            in_shardings=_shardings(self.signature.inputs, mesh),
            out_shardings=list(_shardings(self.signature.outputs, mesh)),
            donate_argnums=_donated(self.signature, donate),
        )

    def __call__(self, *arguments: Tree) -> Tree:
        """Run the program.

        Raises:
            ProgramError: an argument's tree, shape or dtype is not the signature's.
        """
        return self._trees.result(self._jitted(*self.flatten(*arguments)))

    def lower(self, *arguments: Tree) -> jax.stages.Lowered:
        """Lower for these arguments (arrays or abstract values); `.compile()` gives the rest."""
        return self._jitted.lower(*self.flatten(*arguments))

    def flatten(self, *arguments: Tree) -> list[Any]:
        """Return the arguments' leaves in the order of `main`, checked against the signature.

        Raises:
            ProgramError: names the leaf that is missing, unknown, or of another shape or dtype.
        """
        return self._trees.flatten(*arguments)


def load_program(stored: StoredProgram, mesh: Mesh, *, donate: Sequence[int] = ()) -> LoadedProgram:
    """Load a stored program onto a mesh with the axes data, fsdp and tensor.

    `donate` names positions of arguments whose buffers the call may reuse.

    Raises:
        ProgramError: the artifact is damaged, foreign, not what its signature says, or its arrays
            do not split over the mesh.
    """
    if tuple(mesh.axis_names) != AXES:
        raise ProgramError(f"program {stored.name}: mesh axes {mesh.axis_names}, expected {AXES}")
    return LoadedProgram(stored, mesh, donate)


def _replaced_stub(stored: StoredProgram, mesh: Mesh) -> jax_export.Exported:
    stub = jax_export.export(jax.jit(_stub(stored.signature), keep_unused=True))(
        *_abstract_leaves(stored.signature.inputs)
    )
    sizes = {name: int(size) for name, size in mesh.shape.items()}
    with stablehlo.context():
        module = module_checks.open_checked(stored)
        if stored.named is not None:
            module = _checked_named(stored, module)
        stablehlo.set_mesh_sizes(module, sizes)
        artifact = stablehlo.serialise(module, stored.signature.stablehlo)
    return dataclasses.replace(
        stub, mlir_module_serialized=artifact, fun_name=stored.signature.name
    )


def _named_call(name: str, exported: jax_export.Exported) -> Callable[..., Any]:
    def call(*leaves: Any) -> Any:
        return exported.call(*leaves)

    # Profilers show it, and so does the compile cache.
    call.__name__ = name
    return call


def _checked_named(stored: StoredProgram, canonical: Any) -> Any:
    """Return the named module, if stripping it gives the stored one."""
    where = f"program {stored.name}: named copy"
    assert stored.named is not None
    version = stored.signature.stablehlo
    module = stablehlo.parse(stored.named, where=where)
    stablehlo.strip_locations(module)
    # Both written by this jaxlib: another one may have written the same module in other bytes.
    if stablehlo.serialise(module, version) != stablehlo.serialise(canonical, version):
        raise ProgramError(f"{where} is another program; delete it")
    return stablehlo.parse(stored.named, where=where)


def _stub(signature: ProgramSignature) -> Any:
    def stub(*leaves: Any) -> list[Any]:
        batch = next(
            (
                value.shape[leaf.shape.index(BATCH)]
                for leaf, value in zip(signature.inputs, leaves, strict=True)
                if BATCH in leaf.shape
            ),
            None,
        )
        return [_zeros(leaf, batch) for leaf in signature.outputs]

    return stub


def _zeros(leaf: Leaf, batch: Any) -> Any:
    shape = tuple(batch if size == BATCH else size for size in leaf.shape)
    if leaf.dtype == KEY_DTYPE:
        words = jnp.zeros((*shape, 2), jnp.uint32)
        return jax.random.wrap_key_data(words, impl="threefry2x32")
    return jnp.zeros(shape, abstract((), leaf.dtype).dtype)


def _abstract_leaves(leaves: Sequence[Leaf]) -> list[jax.ShapeDtypeStruct]:
    (batch,) = jax_export.symbolic_shape(BATCH)
    return [
        abstract(tuple(batch if size == BATCH else size for size in leaf.shape), leaf.dtype)
        for leaf in leaves
    ]


def _shardings(leaves: Sequence[Leaf], mesh: Mesh) -> tuple[NamedSharding, ...]:
    return tuple(sharding_of(mesh, leaf.spec) for leaf in leaves)


def _donated(signature: ProgramSignature, donate: Sequence[int]) -> tuple[int, ...]:
    names = {signature.arguments[position] for position in donate}
    return tuple(i for i, leaf in enumerate(signature.inputs) if leaf.path[0] in names)


def _check_divisible(signature: ProgramSignature, leaf: Leaf, mesh: Mesh) -> None:
    for size, axes in zip(leaf.shape, leaf.spec, strict=True):
        parts = 1
        for axis in axes:
            parts *= int(mesh.shape[axis])
        if size != BATCH and int(size) % parts:
            raise ProgramError(
                f"program {signature.name}: {leaf.text} has a dimension of {size}, which does not"
                f" split over mesh {'*'.join(axes)} = {parts}; choose sizes that divide"
            )
