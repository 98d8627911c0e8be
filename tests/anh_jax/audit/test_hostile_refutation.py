"""Whoever verifies a refutation runs a stranger's operator: it may not loop, swell or crash."""

import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from anh_jax.audit import refutation as module
from anh_jax.audit.leaf import check_operator
from anh_jax.audit.refutation import judge
from anh_jax.errors import AnhError, ProgramError
from anh_jax.program.export import export_program
from anh_jax.program.interpret import Program, read_stored
from anh_jax.program.interpreter.operations import Operation
from anh_jax.program.signature import StoredProgram, Tensor
from attest.numerics_class import CLASSES
from attest.recording import Value

SIDE = 1 << 20


def hostile(inputs: Any) -> Any:
    """Name results of terabytes, and loop for ever."""
    large = lax.broadcasted_iota(jnp.int32, (SIDE, SIDE), 0)
    spread = jnp.broadcast_to(inputs["x"][0], (SIDE, SIDE))
    count = lax.while_loop(lambda n: n >= 0, lambda n: n * 0, inputs["n"])
    return {"y": jnp.sum(spread) + jnp.sum(large + count)}


@pytest.fixture(scope="module")
def stored() -> StoredProgram:
    tensors = {"n": Tensor((), "int32"), "x": Tensor((2,), "float32")}
    return export_program("hostile", hostile, {"inputs": tensors})


def found(program: Program, name: str) -> tuple[int, Operation]:
    operations = program.functions["main"].operations
    return next((i, o) for i, o in enumerate(operations) if o.name == f"stablehlo.{name}")


def zeros(kinds: Any) -> list[np.ndarray]:
    return [np.zeros(kind.shape, kind.dtype) for kind in kinds]


@pytest.mark.parametrize("name", ["iota", "broadcast_in_dim"])
def test_result_that_is_not_of_the_named_size_is_refused_before_anything_is_computed(
    stored: StoredProgram, name: str
) -> None:
    program = read_stored(stored).program
    operation = found(program, name)[1]
    assert operation.output_types[0].shape == (SIDE, SIDE)
    excess = check_operator(
        program, operation, zeros(operation.input_types), [np.zeros(1, np.int32)],
        rules=CLASSES["f32"], backend="cpu",
    )  # fmt: skip
    assert excess is not None and not excess.accepted


def test_loop_is_never_run_as_one_operator(stored: StoredProgram) -> None:
    program = read_stored(stored).program
    operation = found(program, "while")[1]
    sides = zeros(operation.input_types), zeros(operation.output_types)
    assert check_operator(program, operation, *sides, rules=CLASSES["f32"], backend="cpu") is None


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no"), IndexError("out of it")])
def test_operator_that_fails_is_no_refutation(
    stored: StoredProgram, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*unused: Any, **named: Any) -> Any:
        raise error

    said = types.SimpleNamespace(recording=types.SimpleNamespace(backend="cpu"))
    monkeypatch.setattr(module, "verify_refutation", lambda refutation: said)
    monkeypatch.setattr(module, "check_operator", fail)
    index, operation = found(read_stored(stored).program, "while")
    values = tuple(
        Value(kind.dtype.name, array.shape, array.tobytes())
        for kind, array in zip(operation.input_types, zeros(operation.input_types), strict=True)
    )
    refutation: Any = types.SimpleNamespace(
        signature=stored.signature.to_bytes(),
        artifact=stored.artifact,
        entry=types.SimpleNamespace(name=f"main/{index}"),
        inputs=values,
        outputs=values,
        signed=types.SimpleNamespace(
            contract=types.SimpleNamespace(
                numerics=types.SimpleNamespace(rules=CLASSES["f32"]),
                programs=types.SimpleNamespace(update=""),
            )
        ),
    )
    with pytest.raises(ProgramError, match="cannot be evaluated") as caught:
        judge(refutation)
    assert isinstance(caught.value, AnhError)
