"""Modules that jax would not write for us, written by hand."""

import pytest
from jax._src.lib.mlir import ir

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.module_checks import check_module, first_difference
from anh_jax.program.signature import Leaf, ProgramSignature

SIGNATURE = ProgramSignature(
    name="f",
    stablehlo="1.8.0",
    arguments=("x",),
    inputs=(Leaf(("x",), (4,), "float32", ((),)),),
    outputs=(Leaf(("y",), (4,), "float32", ((),)),),
)
BODY = "return %x : tensor<4xf32>"
EXTRA = (
    "func.func private @helper(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }"
)
MESH = 'sdy.mesh @mesh = <["data"=1, "fsdp"=1, "tensor"=1]>'


def module_text(body=BODY, extra=""):
    return f"""module @f {{
      {extra}
      func.func public @main(%x: tensor<4xf32>) -> tensor<4xf32> {{ {body} }}
    }}"""


def check(text):
    with stablehlo.context():
        check_module(ir.Module.parse(text), SIGNATURE)


@pytest.mark.parametrize("extra", ["", EXTRA, MESH])
def test_a_plain_module_is_accepted(extra):
    check(module_text(extra=extra))


def test_a_second_entry_is_refused():
    with pytest.raises(ProgramError, match=r"public functions \['helper', 'main'\]"):
        check(module_text(extra=EXTRA.replace("private", "public")))
    with pytest.raises(ProgramError, match="public functions"):
        check(module_text(extra=EXTRA.replace("private", "")))


def test_a_module_without_main_is_refused():
    with pytest.raises(ProgramError, match="expected main alone"):
        check(module_text().replace("@main", "@other"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "%0 = stablehlo.custom_call @cublas(%x) : (tensor<4xf32>) -> tensor<4xf32>"
            " return %0 : tensor<4xf32>",
            "custom call 'cublas'",
        ),
        (
            "%t = stablehlo.create_token : !stablehlo.token return %x : tensor<4xf32>",
            "stablehlo.create_token",
        ),
        (
            "%p = stablehlo.partition_id : tensor<ui32> return %x : tensor<4xf32>",
            "stablehlo.partition_id",
        ),
        (
            "%0 = chlo.erf %x : tensor<4xf32> -> tensor<4xf32> return %0 : tensor<4xf32>",
            "chlo.erf",
        ),
    ],
)
def test_an_operator_outside_the_list_is_refused_by_name(body, message):
    with pytest.raises(ProgramError, match=message):
        check(module_text(body))


def test_an_operator_hidden_in_a_region_or_a_helper_is_found():
    inner = """%0 = "stablehlo.if"(%c) ({
        %1 = stablehlo.custom_call @hidden(%x) : (tensor<4xf32>) -> tensor<4xf32>
        stablehlo.return %1 : tensor<4xf32>
      }, { stablehlo.return %x : tensor<4xf32> }) : (tensor<i1>) -> tensor<4xf32>
      return %0 : tensor<4xf32>"""
    with pytest.raises(ProgramError, match="custom call 'hidden'"):
        check(module_text("%c = stablehlo.constant dense<true> : tensor<i1> " + inner))
    helper = EXTRA.replace("{ return", "{ %p = stablehlo.replica_id : tensor<ui32> return")
    with pytest.raises(ProgramError, match="stablehlo.replica_id"):
        check(module_text(extra=helper))


@pytest.mark.parametrize(
    "mesh",
    [
        'sdy.mesh @mesh = <["data"=2, "fsdp"=1, "tensor"=1]>',
        'sdy.mesh @mesh = <["fsdp"=1, "data"=1, "tensor"=1]>',
        'sdy.mesh @mesh = <["data"=1]>',
    ],
)
def test_another_mesh_than_the_logical_one_is_refused(mesh):
    with pytest.raises(ProgramError, match="with sizes of 1"):
        check(module_text(extra=mesh))


def test_the_first_difference_of_two_modules_is_named():
    double = "%0 = stablehlo.add %x, %x : tensor<4xf32> return %0 : tensor<4xf32>"
    with stablehlo.context():
        plain, added, squared, longer = (
            ir.Module.parse(module_text(body))
            for body in (BODY, double, double.replace("add", "multiply"), double)
        )
        assert first_difference(added, longer) is None
        assert first_difference(added, squared) == "stablehlo.add against stablehlo.multiply"
        assert first_difference(plain, added) == "func.return against stablehlo.add"
        shorter = ir.Module.parse("module @f {}")
        assert first_difference(shorter, plain) == "0 operators against 2"
