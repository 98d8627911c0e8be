"""jaxlib's MLIR bindings, as the interpreter's reader needs them.

With `program/stablehlo.py` and `program/load.py` the only file that touches what jax keeps private:
the readers of StableHLO's own attributes, and the pass that jax itself runs before it calls an
exported program (it fixes symbolic sizes and inlines all calls; the public passes of StableHLO
stop at sharding constraints). tests/anh_jax/program/interpreter runs it under each supported jax.
"""

from typing import Any

from jax._src.lib import _jax  # pyright: ignore[reportPrivateUsage]
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import hlo

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo

__all__ = ["hlo", "ir", "refine", "set_argument_types"]


def set_argument_types(module: Any, types: list[str]) -> None:
    """Give `main` these argument types, each cast back to the old one where it is used."""
    (main,) = [x for x in module.body.operations if _name(x.operation) == "main"]
    (block,) = main.operation.regions[0].blocks
    with ir.InsertionPoint.at_block_begin(block):
        for argument, text in zip(block.arguments, types, strict=True):
            before, after = argument.type, ir.Type.parse(text)
            if before == after:
                continue
            argument.set_type(after)
            cast = hlo.ConvertOp(before, argument)
            argument.replace_all_uses_except(cast.result, cast.operation)
    function = ir.FunctionType(ir.TypeAttr(main.operation.attributes["function_type"]).value)
    inputs = [argument.type for argument in block.arguments]
    changed = ir.FunctionType.get(inputs, function.results)
    main.operation.attributes["function_type"] = ir.TypeAttr.get(changed)


def refine(module: Any, *, where: str) -> Any:
    """Return the module with all sizes static and all calls inlined; call inside `context()`.

    Raises:
        ProgramError: the sizes do not fit each other.
    """
    try:
        data = _jax.mlir.refine_polymorphic_shapes(
            mlir_module=_bytecode(module),
            enable_shape_assertions=True,
            validate_static_shapes=True,
            enable_shardy=True,
        )
    except Exception as error:
        words = stablehlo.short(error)
        raise ProgramError(f"{where}: sizes cannot be made static: {words}") from None
    return ir.Module.parse(data)


def _bytecode(module: Any) -> bytes:
    output: Any = _Bytes()
    module.operation.write_bytecode(file=output)
    return bytes(output.data)


class _Bytes:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data


def _name(operation: Any) -> str:
    named = operation.attributes
    return ir.StringAttr(named["sym_name"]).value if operation.name == "func.func" else ""
