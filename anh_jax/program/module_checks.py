"""Refuses modules that no other backend, mesh or year could run the same way.

All checks read the stored module; none trusts the Python that traced it.
"""

from typing import Any

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.signature import AXES, Leaf, ProgramSignature, StoredProgram
from anh_jax.program.tensors import mlir_type

ALLOWED_CUSTOM_CALLS = frozenset(("shape_assertion",))

_DIALECTS = frozenset(("builtin", "func", "stablehlo"))
_SHARDY = frozenset(("sdy.mesh", "sdy.sharding_constraint", "sdy.return"))
# Effects, collectives and generators whose result depends on the machine, not on the operands.
_MACHINE_BOUND = frozenset(
    f"stablehlo.{name}"
    for name in (
        *("infeed", "outfeed", "send", "recv", "after_all", "create_token"),
        *("all_reduce", "all_gather", "all_to_all", "reduce_scatter", "collective_permute"),
        *("collective_broadcast", "partition_id", "replica_id", "rng", "rng_bit_generator"),
    )
)


def check_module(module: Any, signature: ProgramSignature) -> None:
    """Refuse a module that is not the program its signature describes; inside `context()`.

    Raises:
        ProgramError: names the operator, function or leaf that does not fit.
    """
    where = f"program {signature.name}"
    public = stablehlo.public_functions(module)
    if public != ["main"]:
        raise ProgramError(f"{where}: public functions {public}, expected main alone")
    for operation in stablehlo.operations(module):
        check_operation(operation, where=where)
    for operation in stablehlo.mesh_operations(module):
        axes = stablehlo.mesh_axes(operation)
        if tuple(axes) != AXES or set(axes.values()) != {1}:
            raise ProgramError(f"{where}: mesh {axes} is not {AXES} with sizes of 1")
    inputs, outputs = stablehlo.main_types(module)
    _check_types(where, "input", signature.inputs, inputs)
    _check_types(where, "output", signature.outputs, outputs)


def check_operation(operation: Any, *, where: str) -> None:
    """Refuse an operator that a stored program may not hold.

    Raises:
        ProgramError: names the operator.
    """
    name = operation.name
    target = stablehlo.custom_call_target(operation)
    if target is not None and target not in ALLOWED_CUSTOM_CALLS:
        raise ProgramError(
            f"{where}: custom call {target!r} is not in the contract's list"
            f" {sorted(ALLOWED_CUSTOM_CALLS)}; write it with portable operators"
        )
    if name in _MACHINE_BOUND or (name.split(".")[0] not in _DIALECTS and name not in _SHARDY):
        raise ProgramError(
            f"{where}: operator {name} depends on the machine that runs it;"
            " write it with portable operators"
        )


def open_checked(stored: StoredProgram) -> Any:
    """Read the artifact and check it against the signature; call inside `context()`.

    Raises:
        ProgramError: the artifact is damaged, foreign, or not what the signature says.
    """
    where = f"program {stored.name}"
    version = stablehlo.artifact_version(stored.artifact, where=where)
    if version != stored.signature.stablehlo:
        raise ProgramError(
            f"{where}: written as StableHLO {version}, its signature says"
            f" {stored.signature.stablehlo}"
        )
    module = stablehlo.parse(stored.artifact, where=where)
    check_module(module, stored.signature)
    return module


def first_difference(left: Any, right: Any) -> str | None:
    """Return in words where two modules first differ, None where no operator does."""
    pairs = zip(_described(left), _described(right), strict=False)
    for (name, a), (other, b) in pairs:
        if a != b:
            return name if name == other else f"{name} against {other}"
    counts = len(_described(left)), len(_described(right))
    return None if counts[0] == counts[1] else f"{counts[0]} operators against {counts[1]}"


def _described(module: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [
        (
            operation.name,
            (
                operation.name,
                stablehlo.attribute_texts(operation),
                [str(x.type) for x in operation.operands],
                [str(x.type) for x in operation.results],
            ),
        )
        for operation in stablehlo.operations(module)
    ]


def _check_types(where: str, kind: str, leaves: tuple[Leaf, ...], types: list[str]) -> None:
    if len(leaves) != len(types):
        raise ProgramError(f"{where}: main has {len(types)} {kind}s, signature {len(leaves)}")
    for leaf, found in zip(leaves, types, strict=True):
        expected = mlir_type(leaf.shape, leaf.dtype)
        if found != expected:
            raise ProgramError(f"{where}: {kind} {leaf.text} is {found}, signature {expected}")
