"""Turns a pure function into a stored program.

The function is traced under a *logical mesh* whose axes have size 1, with sharding constraints by
axis name, and with a symbolic batch; it is lowered for cuda and for tpu apart, and only where both
give the same bytes is there a program (docs/protocol.md, "Programs").
"""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from jax import export as jax_export
from jax.sharding import AbstractMesh, AxisType

from anh_jax.errors import AnhError, ProgramError
from anh_jax.program import class_form, module_checks, stablehlo
from anh_jax.program.signature import (
    AXES,
    BATCH,
    Leaf,
    ProgramSignature,
    Spec,
    StoredProgram,
    check_signature,
    empty_inputs,
    input_leaves,
)
from anh_jax.program.tensors import abstract, dtype_name
from anh_jax.program.tree import Path, Tree, empty_nodes, leaves_of, path_text
from attest.numerics_class import CLASSES, ClassRules

LOGICAL_MESH = AbstractMesh((1,) * len(AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES))
# The cpu form differs where dropout draws bits, and runs slower; the cuda form runs on cpu too.
_PLATFORMS = ("cuda", "tpu")
# Named copies keep the operators' names, never the author's folders and line numbers.
_LOCATION_LIMIT = "jax_traceback_in_locations_limit"


@dataclass(frozen=True)
class _Lowered:
    artifact: bytes
    named: bytes
    version: str


def export_program(
    name: str,
    function: Callable[..., Tree],
    arguments: Mapping[str, Tree],
    *,
    output_specs: Mapping[Path, Spec] | None = None,
    precision: str = "highest",
    rules: ClassRules = CLASSES["f32"],
) -> StoredProgram:
    """Trace `function`, called with the arguments in order, into a stored program.

    `arguments` maps each argument's name to its tree of `Tensor`; `"b"` in a shape is the batch.
    `output_specs` gives mesh axes for outputs by path (default: replicated). `precision` is the
    matmul precision written into the program, so that it does not depend on a backend's default;
    `rules` are those of the numerics class whose products it gets instead.

    Raises:
        ProgramError: the function cannot be traced for every batch size, depends on the platform,
            calls custom code, or returns anything but dicts of arrays.
    """
    leaves = input_leaves(arguments)
    shapes = _abstract_inputs(arguments)
    # Unused arguments stay: the signature, not the traced code, says what a program takes. One
    # jitted function for all platforms: it is traced once and lowered for each.
    jitted = jax.jit(_fresh(function), keep_unused=True)
    exports = [_export(name, jitted, shapes, platform, precision) for platform in _PLATFORMS]
    results = _result_tree(exports[0])
    with stablehlo.context():
        lowered = _equal_form(name, exports, rules)
        signature = ProgramSignature(
            name=name,
            stablehlo=lowered.version,
            arguments=tuple(arguments),
            inputs=leaves,
            outputs=_output_leaves(name, results, output_specs or {}),
            empty_inputs=empty_inputs(arguments),
            empty_outputs=tuple(empty_nodes(results)),
        )
        check_signature(signature)
        stored = StoredProgram(lowered.artifact, signature, lowered.named)
        module_checks.open_checked(stored)
    return stored


def _export(
    name: str, jitted: jax.stages.Wrapped, shapes: list[Tree], platform: str, precision: str
) -> jax_export.Exported:
    try:
        with (
            _without_paths(),
            jax.default_matmul_precision(precision),
            jax.sharding.use_abstract_mesh(LOGICAL_MESH),
        ):
            return jax_export.export(jitted, platforms=[platform])(*shapes)
    except AnhError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        if "specified backend" in first:
            # What jax says of callbacks names neither them nor the program.
            first += " (a stored program cannot call Python: no debug.print, no callbacks)"
        raise ProgramError(
            f"program {name}: cannot be exported for {platform}:"
            f" {type(error).__name__}: {first[:400]}"
        ) from error


def _fresh(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Hide `function` from jax's tracing cache, which does not know of the precision asked for."""
    names = list(inspect.signature(function).parameters)

    def traced(*arguments: Tree) -> Tree:
        return function(*arguments)

    traced.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in names]
    )
    return traced


@contextmanager
def _without_paths() -> Generator[None]:
    before = getattr(jax.config, _LOCATION_LIMIT)
    jax.config.update(_LOCATION_LIMIT, 0)
    try:
        yield
    finally:
        jax.config.update(_LOCATION_LIMIT, before)


def _equal_form(name: str, exports: list[jax_export.Exported], rules: ClassRules) -> _Lowered:
    """Return the one stored form of both lowerings; call inside `stablehlo.context()`."""
    where = f"program {name}"
    modules = [stablehlo.parse(x.mlir_module_serialized, where=where) for x in exports]
    for module in modules:
        # Before anything else: a custom call explains a difference better than its attributes.
        for operation in stablehlo.operations(module):
            module_checks.check_operation(operation, where=where)
        stablehlo.canonicalise(module, name)
        class_form.write_class(module, rules, where=where)
    version = stablehlo.oldest_version(modules[0], where=where)
    named = stablehlo.serialise(modules[0], version)
    for module in modules:
        stablehlo.strip_locations(module)
    artifact = stablehlo.serialise(modules[0], version)
    if artifact != stablehlo.serialise(modules[1], version):
        operator = module_checks.first_difference(*modules) or "an unknown operator"
        raise ProgramError(
            f"{where}: {' and '.join(_PLATFORMS)} lower to different modules, first at {operator};"
            " write it with operators that do not depend on the platform"
        )
    return _Lowered(artifact, named, version)


def _abstract_inputs(arguments: Mapping[str, Tree]) -> list[Tree]:
    (batch,) = jax_export.symbolic_shape(BATCH)

    def concrete(tensor: Any) -> jax.ShapeDtypeStruct:
        sizes = tuple(batch if size == BATCH else size for size in tensor.shape)
        return abstract(sizes, tensor.dtype)

    return [jax.tree.map(concrete, tree) for tree in arguments.values()]


def _result_tree(exported: jax_export.Exported) -> Tree:
    return jax.tree.unflatten(exported.out_tree, exported.out_avals)


def _output_leaves(name: str, results: Tree, specs: Mapping[Path, Spec]) -> tuple[Leaf, ...]:
    found = leaves_of(results)
    for path in specs:
        if path not in found:
            raise ProgramError(f"program {name}: spec for {path_text(path)}, which is no output")
    leaves: list[Leaf] = []
    for path, aval in found.items():
        shape = tuple(_size(name, path, size) for size in aval.shape)
        spec = specs.get(path) or ((),) * len(shape)
        leaves.append(Leaf(path, shape, dtype_name(aval.dtype), spec))
    return tuple(leaves)


def _size(name: str, path: Path, size: Any) -> int | str:
    if isinstance(size, int):
        return size
    if str(size) == BATCH:
        return BATCH
    raise ProgramError(
        f"program {name}: output {path_text(path)} has a dimension of size {size};"
        f" only a number or the batch {BATCH!r} itself can be stored"
    )
