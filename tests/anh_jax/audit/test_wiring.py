"""To follow a stranger's program ends, whatever it says, and claims nothing of other batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from anh_jax.audit import stranger_program as stranger_program_module
from anh_jax.audit import wiring as module
from anh_jax.audit.stranger_program import stranger_program
from anh_jax.audit.wiring import Known, wiring
from anh_jax.errors import ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.interpret import InterpretedProgram, read_stored
from anh_jax.program.interpreter.operations import Program, make_block
from anh_jax.program.signature import BATCH, Tensor

F32 = "float32"


def read(function: Any, shape: tuple[Any, ...] = ()) -> InterpretedProgram:
    tensors = {"inputs": {"x": Tensor(shape, F32)}}
    return read_stored(export_program("followed", function, tensors))


def test_calls_that_compute_nothing_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty functions of a few bytes, each calling the next twice, are 2^40 calls."""
    monkeypatch.setattr(module, "_MOST_STEPS", 1 << 12)
    read_program = read(lambda inputs: {"y": jax.jit(jnp.sin)(inputs["x"])})
    call = next(
        x for x in read_program.program.functions["main"].operations if "callee" in x.attributes
    )
    functions = {"f40": make_block((0,), call.input_types, (), (0,))}
    for depth in range(39, -1, -1):
        operations = tuple(
            type(call)(call.name, (n,), (n + 1,), call.input_types, call.output_types,
                       {"callee": f"f{depth + 1}"}, ())
            for n in range(2)
        )  # fmt: skip
        functions[f"f{depth}"] = make_block((0,), call.input_types, operations, (2,))
    hostile = Program("calls", {"main": functions["f0"], **functions})
    with pytest.raises(ProgramError, match="are evaluated"):
        wiring(InterpretedProgram(read_program.signature, hostile))


def test_loop_that_counts_to_a_product_of_constants_is_refused() -> None:
    """No constant of it is large; listing its numbers would take terabytes."""

    def far(inputs: Any) -> Any:
        limit = lax.mul(lax.mul(np.int32(1 << 15), np.int32(1 << 15)), np.int32(1))

        def more(carry: Any) -> Any:
            return carry[0] + jnp.int32(1), carry[1] * 2

        return {"y": lax.while_loop(lambda c: c[0] < limit, more, (jnp.int32(0), inputs["x"]))[1]}

    with pytest.raises(ProgramError, match="runs more than"):
        wiring(read(far))


def test_what_only_a_large_batch_shows_is_said_of_none() -> None:
    """An operand of 8 for batches of 2 and 3 is no operand of 8: honest recordings hold others."""

    def sized(inputs: Any) -> Any:
        x = inputs["x"]
        return {"y": jnp.sum(x) * jnp.maximum(x.shape[0], 8).astype(F32)}

    found = wiring(read(sized, (BATCH,)))
    eight = module.value_of(np.asarray(8, np.float32)).digest()
    known = [x for each in found.operators for x in each.operands if isinstance(x, Known)]
    assert all(x != Known(eight) for x in known)
    assert any(None in each.operands for each in found.operators)


def test_constants_that_are_large_together_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is small enough, in a few bytes of text; together they fill the memory."""

    def filled(inputs: Any) -> Any:
        total = inputs["x"]
        for n in range(8):
            total = total + jnp.asarray(np.random.default_rng(n).random(64, np.float32))
        return {"y": total}

    stored = export_program("filled", filled, {"inputs": {"x": Tensor((64,), F32)}})
    parts = stored.signature.to_bytes(), stored.artifact
    stranger_program(*parts)
    monkeypatch.setattr(stranger_program_module, "_MOST_CONSTANT", 8 * 64 - 1)
    with pytest.raises(ProgramError, match="constants of more than"):
        stranger_program(*parts)
