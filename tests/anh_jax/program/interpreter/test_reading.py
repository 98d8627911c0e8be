from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.lib.mlir import ir

import anh_jax
from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.export import export_program
from anh_jax.program.interpret import read_refined, read_stored
from anh_jax.program.interpreter import attributes
from anh_jax.program.signature import Tensor
from tests.anh_jax.program.interpreter.written import stored_from

REFUSED = {
    "fft": (
        """%c = stablehlo.fft %x, type = RFFT, length = [4]
          : (tensor<4xf32>) -> tensor<3xcomplex<f32>>
        %y = stablehlo.fft %c, type = IRFFT, length = [4]
          : (tensor<3xcomplex<f32>>) -> tensor<4xf32>""",
        "element type complex<f32>",
    ),
    "cholesky": (
        """%m = stablehlo.reshape %x : (tensor<4xf32>) -> tensor<2x2xf32>
        %n = stablehlo.cholesky %m, lower = true : tensor<2x2xf32>
        %y = stablehlo.reshape %n : (tensor<2x2xf32>) -> tensor<4xf32>""",
        "program f: operator stablehlo.cholesky at main/1 is not one that the interpreter",
    ),
    "double": (
        """%d = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xf64>
        %y = stablehlo.convert %d : (tensor<4xf64>) -> tensor<4xf32>""",
        "program f: function main: element type f64",
    ),
    "callback": (
        """%y = stablehlo.custom_call @callback(%x) : (tensor<4xf32>) -> tensor<4xf32>""",
        "custom call 'callback'",
    ),
    "machine bound": (
        """%k = stablehlo.constant dense<[1, 2]> : tensor<2xui64>
        %s, %b = stablehlo.rng_bit_generator %k, algorithm = THREE_FRY
          : (tensor<2xui64>) -> (tensor<2xui64>, tensor<4xui32>)
        %y = stablehlo.convert %b : (tensor<4xui32>) -> tensor<4xf32>""",
        "operator stablehlo.rng_bit_generator depends on the machine",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_evaluated_is_refused_by_name_when_it_is_read(name):
    body, words = REFUSED[name]
    stored = stored_from(body)
    for read in (read_stored, lambda s: read_refined(s, batch=None)):
        with pytest.raises(ProgramError) as refusal:
            read(stored)
        assert words in str(refusal.value)


def test_a_comparator_that_jax_does_not_write_is_refused_by_operator():
    body = """%y = "stablehlo.sort"(%x) ({
        ^bb0(%a: tensor<f32>, %b: tensor<f32>):
          %n = stablehlo.negate %b : tensor<f32>
          %r = stablehlo.compare LT, %a, %n : (tensor<f32>, tensor<f32>) -> tensor<i1>
          stablehlo.return %r : tensor<i1>
      }) {dimension = 0 : i64, is_stable = true} : (tensor<4xf32>) -> tensor<4xf32>"""
    program = read_stored(stored_from(body))
    with pytest.raises(ProgramError, match="operator stablehlo.sort at main/0: its comparator"):
        program(np.ones(4, np.float32))


def test_constants_are_read_bit_for_bit():
    bf16 = np.array([1.5, -0.0, np.inf, np.nan], jnp.bfloat16)
    many = np.random.default_rng(0).normal(size=400).astype(jnp.bfloat16)
    fp8 = np.array([0.125, -448, 1, 0], jnp.float8_e4m3fn)
    payload = np.array([0x7FC00123, 0xFFC00001, 0x80000000, 1], np.uint32).view(np.float32)
    masks = np.array([True, False, True, True])

    def function(x):
        return {
            "bf16": jax.lax.bitcast_convert_type(jnp.asarray(bf16), jnp.uint16),
            "fp8": jax.lax.bitcast_convert_type(jnp.asarray(fp8), jnp.uint8),
            "many": jax.lax.bitcast_convert_type(jnp.asarray(many), jnp.uint16),
            "mask": jnp.asarray(masks),
            "payload": jax.lax.bitcast_convert_type(jnp.asarray(payload), jnp.uint32),
            "splat": jax.lax.bitcast_convert_type(jnp.full(3, 2.5, jnp.bfloat16), jnp.uint16),
            "x": x,
        }

    stored = export_program("constants", function, {"x": Tensor((2,), "float32")})
    found = read_stored(stored)(np.ones(2, np.float32))
    np.testing.assert_array_equal(found["bf16"], bf16.view(np.uint16))
    np.testing.assert_array_equal(found["many"], many.view(np.uint16))
    np.testing.assert_array_equal(found["fp8"], fp8.view(np.uint8))
    np.testing.assert_array_equal(found["payload"], payload.view(np.uint32))
    np.testing.assert_array_equal(found["mask"], masks)
    np.testing.assert_array_equal(found["splat"], np.full(3, 2.5, jnp.bfloat16).view(np.uint16))


def test_one_stored_form_takes_every_batch_and_a_refined_one_its_own(mlp_cases):
    case = mlp_cases["evaluate"]
    program = read_stored(case.stored)
    parameters, examples = case.arguments
    for size in (1, 4):
        part = jax.tree.map(lambda x, n=size: x[:n], examples)
        assert int(jax.jit(program)(parameters, part)["total"]) == size
    refined = read_refined(case.stored, batch=4)
    with pytest.raises(ProgramError, match="refined for batch 4"):
        refined(parameters, examples)
    with pytest.raises(ProgramError, match="takes a batch of at least 1"):
        read_refined(case.stored, batch=None)
    with pytest.raises(ProgramError, match="takes no batch"):
        read_refined(mlp_cases["update"].stored, batch=4)


def test_arguments_of_another_form_are_refused_by_leaf(mlp_cases):
    case = mlp_cases["evaluate"]
    program = read_stored(case.stored)
    parameters, examples = case.arguments
    with pytest.raises(ProgramError, match=r"examples/label is int64\[6\]"):
        program(parameters, {**examples, "label": np.ones(6, np.int64)})


def test_floating_point_never_has_64_bits(lm_cases):
    case = lm_cases["gradient"]
    dtypes = set()

    def around(visit, inputs, default):
        outputs = default(*inputs)
        dtypes.update(str(x.dtype) for x in (*inputs, *outputs))
        return outputs

    jax.eval_shape(lambda *a: read_stored(case.stored)(*a, around=around), *case.arguments)
    assert "float32" in dtypes
    assert not dtypes & {"float64", "complex128"}


def test_only_the_named_files_of_the_interpreter_touch_what_jax_keeps_private():
    folder = Path(anh_jax.__file__).parent / "program"
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if "jax._src" in path.read_text(encoding="utf-8").split('"""', 2)[2]
    }
    assert found == {"stablehlo.py", "interpreter/bindings.py"}


def test_a_branch_out_of_range_is_the_last_one():
    body = """%i = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xi32>
      %s = stablehlo.slice %i [0:1] : (tensor<4xi32>) -> tensor<1xi32>
      %n = stablehlo.reshape %s : (tensor<1xi32>) -> tensor<i32>
      %y = "stablehlo.case"(%n) ({
        %a = stablehlo.add %x, %x : tensor<4xf32>
        stablehlo.return %a : tensor<4xf32>
      }, {
        %b = stablehlo.negate %x : tensor<4xf32>
        stablehlo.return %b : tensor<4xf32>
      }) : (tensor<i32>) -> tensor<4xf32>"""
    program = read_stored(stored_from(body))
    for first, factor in ((0, 2), (1, -1), (7, -1), (-3, -1)):
        x = np.full(4, first, np.float32)
        x[1:] = 0.5
        for evaluate in (program, jax.jit(program)):
            np.testing.assert_array_equal(evaluate(x)["00"], x * factor)


@pytest.mark.parametrize("mode", ["DEFAULT", "HIGHEST"])
def test_the_accuracy_that_a_program_asks_for_is_read_as_its_word(mode):
    text = f"#stablehlo.result_accuracy<mode = #stablehlo.result_accuracy_mode<{mode}>>"
    with stablehlo.context():
        assert attributes._accuracy(ir.Attribute.parse(text)) == mode
