import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.errors import ProgramError
from anh_jax.program.signature import (
    Leaf,
    ProgramSignature,
    StoredProgram,
    Tensor,
    check_signature,
    empty_inputs,
    input_leaves,
)
from attest import canonical

ARGUMENTS = {
    "state": {"w": Tensor((4, 8), "float32", (("fsdp",), ("tensor",))), "none": {}},
    "examples": {"x": Tensor(("b", 4), "float32", (("data", "fsdp"), ()))},
    "key": Tensor((), "key<fry>"),
}
SIGNATURE = ProgramSignature(
    name="gradient",
    stablehlo="1.8.0",
    arguments=tuple(ARGUMENTS),
    inputs=input_leaves(ARGUMENTS),
    outputs=(Leaf(("loss",), (), "float32", ()), Leaf(("y",), ("b",), "float32", ((),))),
    empty_inputs=empty_inputs(ARGUMENTS),
    empty_outputs=(("statistics",),),
)


def changed(**fields):
    return msgspec.structs.replace(SIGNATURE, **fields)


def test_signature_bytes_are_canonical_json_and_come_back_equal():
    data = SIGNATURE.to_bytes()
    assert canonical.encode(json.loads(data)) == data
    assert ProgramSignature.from_bytes(data) == SIGNATURE


def test_trees_of_arguments_and_outputs_come_back_whole():
    assert SIGNATURE.inputs_of("state") == ARGUMENTS["state"]
    assert SIGNATURE.inputs_of("examples") == ARGUMENTS["examples"]
    assert SIGNATURE.inputs_of("key") == ARGUMENTS["key"]
    assert SIGNATURE.output_tree()["statistics"] == {}
    with pytest.raises(ProgramError, match="no argument 'seed'"):
        SIGNATURE.inputs_of("seed")


@given(st.integers(0, len(SIGNATURE.to_bytes()) - 1), st.integers(0, 7))
def test_a_signature_with_one_flipped_bit_is_another_or_refused(position, bit):
    data = bytearray(SIGNATURE.to_bytes())
    data[position] ^= 1 << bit
    with contextlib.suppress(ProgramError):
        assert ProgramSignature.from_bytes(bytes(data)) != SIGNATURE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"arguments": ("state", "examples")}, "input key has no argument"),
        ({"arguments": ("state", "examples", "key", "key")}, "named twice"),
        ({"inputs": SIGNATURE.inputs[::-1]}, "flattening order"),
        ({"inputs": (*SIGNATURE.inputs, SIGNATURE.inputs[-1])}, "flattening order"),
        ({"outputs": SIGNATURE.outputs[::-1]}, "flattening order"),
        ({"outputs": (Leaf(("y",), ("c",), "float32", ((),)),)}, "neither a size"),
        ({"outputs": (Leaf(("y",), (-1,), "float32", ((),)),)}, "neither a size"),
        ({"outputs": (Leaf(("y",), (4,), "float32", ()),)}, "1 dimensions but 0 specs"),
        ({"outputs": (Leaf(("y",), (4,), "float32", (("pod",),)),)}, "not a use of the axes"),
        (
            {"outputs": (Leaf(("y",), (4, 4), "float32", (("fsdp",), ("fsdp",))),)},
            "not a use of the axes",
        ),
        (
            {"inputs": SIGNATURE.inputs[:1], "arguments": ("state",), "empty_inputs": ()},
            "batch dimension that no input has",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ProgramError, match=message):
        check_signature(changed(**change))
    with pytest.raises(ProgramError, match=message):
        ProgramSignature.from_bytes(changed(**change).to_bytes())


@pytest.mark.parametrize("extra", [{"note": "x"}, {"version": None}])
def test_unknown_or_mistyped_fields_are_refused(extra):
    value = {**json.loads(SIGNATURE.to_bytes()), **extra}
    with pytest.raises(ProgramError, match="program signature"):
        ProgramSignature.from_bytes(canonical.encode(value))


def test_fields_left_to_their_defaults_are_refused():
    value = json.loads(SIGNATURE.to_bytes())
    del value["version"]
    with pytest.raises(ProgramError, match="left out"):
        ProgramSignature.from_bytes(canonical.encode(value))


def test_the_id_covers_artifact_and_signature_but_not_the_named_copy():
    program = StoredProgram(b"module", SIGNATURE)
    assert program.id == StoredProgram(b"module", SIGNATURE, named=b"names").id
    assert program.id != StoredProgram(b"module.", SIGNATURE).id
    assert program.id != StoredProgram(b"module", changed(name="other")).id
    assert program.name == "gradient"
