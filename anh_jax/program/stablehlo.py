"""StableHLO modules as jaxlib's MLIR bindings show them.

With load.py, the only file that touches what jax keeps private: `jax._src` holds the context with
all dialects, the (de)serialisers of portable artifacts and the shardy dialect, and there is no
public door to them. tests/anh_jax/program/test_load.py runs it under each supported jax.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jax._src.interpreters import mlir
from jax._src.lib import _jax  # pyright: ignore[reportPrivateUsage]
from jax._src.lib.mlir import ir, passmanager
from jax._src.lib.mlir.dialects import hlo, sdy

from anh_jax.errors import ProgramError

# Oldest version written. Every supported jax reads it; what it cannot express (exact gelu and
# cumsum on newer jax, for example) takes the next version that can.
_OLDEST_MINOR = 8
_HEADER = re.compile(rb"ML\xefR.StableHLO_v(\d{1,4}\.\d{1,4}\.\d{1,4})\x00", re.DOTALL)
# The message jax writes quotes Python names and a URL of its own documentation.
_SHAPE_MESSAGE = "argument shapes do not agree on the batch dimension b"
_MESH = "sdy.mesh"


@contextmanager
def context() -> Generator[Any]:
    """Enter an MLIR context that knows jax's dialects and keeps its diagnostics to itself."""
    with mlir.make_ir_context() as entered, ir.Location.unknown():
        # Unhandled diagnostics go to standard error; the raised exception has the same text.
        handler: Any = entered.attach_diagnostic_handler(lambda _: True)
        try:
            yield entered
        finally:
            handler.detach()


def parse(artifact: bytes, *, where: str) -> Any:
    """Read a portable artifact into a module; call inside `context()`.

    Raises:
        ProgramError: the bytes are not one, or this jaxlib does not read their version.
    """
    artifact_version(artifact, where=where)
    current: Any = ir.Context.current
    try:
        return hlo.deserialize_portable_artifact(current, artifact)
    except Exception as error:
        raise ProgramError(f"{where}: this jaxlib cannot read it: {short(error)}") from None


def artifact_version(artifact: bytes, *, where: str) -> str:
    """Return the StableHLO version a portable artifact was written for.

    Raises:
        ProgramError: the bytes do not start as a portable artifact does.
    """
    header = _HEADER.match(artifact)
    if header is None:
        raise ProgramError(f"{where}: the bytes are not a StableHLO portable artifact")
    return header.group(1).decode()


def serialise(module: Any, version: str) -> bytes:
    """Write the module as a portable artifact of that StableHLO version."""
    # The binding of that name in the hlo dialect rewrites the module it is given.
    return _jax.mlir.serialize_portable_artifact(module, version, True)


def oldest_version(module: Any, *, where: str) -> str:
    """Return the oldest StableHLO version, from 1.8.0 on, that can express the module.

    Raises:
        ProgramError: none can.
    """
    error: Exception | None = None
    current = hlo.get_current_version()
    minors = range(_OLDEST_MINOR, int(current.split(".")[1]))
    for version in (*(f"1.{minor}.0" for minor in minors), current):
        try:
            serialise(module, version)
        except Exception as failure:
            error = failure
        else:
            return version
    raise ProgramError(f"{where}: cannot be written as portable StableHLO: {short(error)}")


def strip_locations(module: Any) -> None:
    """Remove source locations and names: they change bytes and leak the author's folders."""
    passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)


def canonicalise(module: Any, name: str) -> None:
    """Replace what depends on Python names or on jax's wording, and computes nothing."""
    module.operation.attributes["sym_name"] = ir.StringAttr.get(name)
    for operation in operations(module):
        if operation.name == "func.func":
            _drop_result_names(operation)
        elif custom_call_target(operation) == "shape_assertion":
            operation.attributes["error_message"] = ir.StringAttr.get(_SHAPE_MESSAGE)


def operations(module: Any) -> Iterator[Any]:
    """Yield every operation, outer before inner, in program order."""
    yield from _nested(module.operation)


def custom_call_target(operation: Any) -> str | None:
    """Return what a custom call calls, None for any other operation."""
    if operation.name != "stablehlo.custom_call":
        return None
    return ir.StringAttr(operation.attributes["call_target_name"]).value


def attribute_texts(operation: Any) -> dict[str, str]:
    """Return the operation's attributes as MLIR text, by name."""
    names = [getattr(entry, "name", entry) for entry in operation.attributes]
    return {name: str(operation.attributes[name]) for name in sorted(names)}


def element_type(value: Any) -> str:
    """Return the MLIR name of a tensor's element type, such as `f32`."""
    return str(getattr(value.type, "element_type", value.type))


def mesh_axes(operation: Any) -> dict[str, int]:
    """Return the axis sizes of an `sdy.mesh` operation, by name."""
    axes = [sdy.MeshAxisAttr(axis) for axis in sdy.MeshAttr(operation.attributes["mesh"]).axes]
    return {axis.name: axis.size for axis in axes}


def mesh_operations(module: Any) -> list[Any]:
    """Return the `sdy.mesh` operations that have axes."""
    found = [op.operation for op in module.body.operations if op.operation.name == _MESH]
    return [operation for operation in found if mesh_axes(operation)]


def set_mesh_sizes(module: Any, sizes: Mapping[str, int]) -> None:
    """Write the executor's axis sizes into the logical mesh, and change nothing else."""
    for operation in mesh_operations(module):
        names = list(mesh_axes(operation))
        shardy = ", ".join(f'"{name}"={sizes[name]}' for name in names)
        operation.attributes["mesh"] = ir.Attribute.parse(f"#sdy.mesh<[{shardy}]>")
        if "stablehlo.mesh" in operation.attributes:
            axes = ", ".join(f'{{name = "{name}", size = {sizes[name]} : i64}}' for name in names)
            operation.attributes["stablehlo.mesh"] = ir.Attribute.parse(f"{{axes = [{axes}]}}")


def main_types(module: Any) -> tuple[list[str], list[str]]:
    """Return the types of `main`'s arguments and results as MLIR text."""
    for operation in module.body.operations:
        attributes = operation.operation.attributes
        if operation.operation.name == "func.func" and _text(attributes["sym_name"]) == "main":
            kind = ir.FunctionType(ir.TypeAttr(attributes["function_type"]).value)
            return [str(x) for x in kind.inputs], [str(x) for x in kind.results]
    return [], []


def public_functions(module: Any) -> list[str]:
    """Return the names of the functions that can be called from outside."""
    names: list[str] = []
    for operation in module.body.operations:
        attributes = operation.operation.attributes
        if operation.operation.name == "func.func":
            private = "sym_visibility" in attributes
            if not private or _text(attributes["sym_visibility"]) == "public":
                names.append(_text(attributes["sym_name"]))
    return names


def short(error: Exception | None) -> str:
    """Return what an error of the bindings says, cut: they quote the whole module."""
    return " ".join(str(error).split())[:200]


def _nested(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _nested(inner.operation)


def _drop_result_names(function: Any) -> None:
    if "res_attrs" not in function.attributes:
        return
    kept: list[Any] = []
    for entry in ir.ArrayAttr(function.attributes["res_attrs"]):
        named = ir.DictAttr(entry)
        pairs = {item.name: item.attr for item in named if item.name != "jax.result_info"}
        kept.append(ir.DictAttr.get(pairs))
    function.attributes["res_attrs"] = ir.ArrayAttr.get(kept)


def _text(attribute: Any) -> str:
    return ir.StringAttr(attribute).value
