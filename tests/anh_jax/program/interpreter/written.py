"""Programs by hand, for operators and forms of them that jax does not write.

Each has a source: the jax function that gives the same results.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax import lax
from jax._src.lib.mlir import ir

from anh_jax.program import stablehlo
from anh_jax.program.signature import StoredProgram
from tests.anh_jax.program.interpreter.battery import floats, integers
from tests.anh_jax.program.interpreter.families import exported

FIRST = "%a: tensor<2x6xf32>, %s: tensor<2x3xf32>"
CHOICE = """%z = stablehlo.constant dense<0.0> : tensor<f32>
  %y = "stablehlo.select_and_scatter"(%a, %s, %z) <{{window_dimensions = array<i64: 1, 3>,
    window_strides = array<i64: 1, 2>, padding = dense<[[0, 0], [1, 0]]> : tensor<2x2xi64>}}> ({{
    ^bb0(%l: tensor<f32>, %r: tensor<f32>):
      %c = stablehlo.compare {}, %l, %r : (tensor<f32>, tensor<f32>) -> tensor<i1>
      stablehlo.return %c : tensor<i1> }}, {{
    ^bb0(%l: tensor<f32>, %r: tensor<f32>):
      %t = stablehlo.add %l, %r : tensor<f32>
      stablehlo.return %t : tensor<f32>
  }}) : (tensor<2x6xf32>, tensor<2x3xf32>, tensor<f32>) -> tensor<2x6xf32>"""


def stored_from(body: str) -> StoredProgram:
    """Return the program of that body: from four numbers `%x` to four, `%y`."""
    return Written("%x: tensor<4xf32>", body, "tensor<4xf32>", lambda x: x, (floats(4),)).stored()


@dataclass(frozen=True)
class Written:
    """A program's body, with its arguments' types in MLIR, and what it computes."""

    types: str
    body: str
    result: str
    source: Callable[..., Any]
    arguments: tuple[Any, ...]

    def stored(self) -> StoredProgram:
        """Return the program under the signature of its source."""
        result = jax.eval_shape(self.source, *self.arguments)
        like, _, _ = exported(lambda *_: jnp.zeros(result.shape, result.dtype), self.arguments)
        text = f"""module @f {{ func.func public @main({self.types}) -> {self.result} {{
          {self.body}
          return %y : {self.result} }} }}"""
        with stablehlo.context():
            module = ir.Module.parse(text)
            version = stablehlo.oldest_version(module, where="test")
            artifact = stablehlo.serialise(module, version)
        return StoredProgram(artifact, msgspec.structs.replace(like.signature, stablehlo=version))


def _transposed(reducer: Any, start: float) -> Callable[..., Any]:
    def function(x: Any, s: Any) -> Any:
        def pooled(v: Any) -> Any:
            return lax.reduce_window(v, start, reducer, (1, 3), (1, 2), [(0, 0), (1, 0)])

        return jax.vjp(pooled, x)[1](s)[0]

    return function


def _branch(sign: float) -> Written:
    return Written(
        "%x: tensor<4xf32>, %p: tensor<f32>",
        """%z = stablehlo.constant dense<0.0> : tensor<f32>
        %c = stablehlo.compare GT, %p, %z : (tensor<f32>, tensor<f32>) -> tensor<i1>
        %y = "stablehlo.if"(%c) ({
          %t = stablehlo.sine %x : tensor<4xf32>
          stablehlo.return %t : tensor<4xf32> }, {
          %f = stablehlo.cosine %x : tensor<4xf32>
          stablehlo.return %f : tensor<4xf32>
        }) : (tensor<i1>) -> tensor<4xf32>""",
        "tensor<4xf32>",
        lambda x, p: lax.cond(p > 0, jnp.sin, jnp.cos, x),
        (floats(4), np.float32(sign)),
    )


WRITTEN = {
    "if, true": _branch(0.5),
    "if, false": _branch(-0.5),
    "logistic": Written(
        "%x: tensor<4xf32>",
        "%y = stablehlo.logistic %x : tensor<4xf32>",
        "tensor<4xf32>",
        jax.nn.sigmoid,
        (floats(4),),
    ),
    "transposed maximum": Written(
        FIRST,
        CHOICE.format("GE"),
        "tensor<2x6xf32>",
        _transposed(lax.max, -np.inf),
        (floats(2, 6), floats(2, 3, seed=1)),
    ),
    "transposed minimum": Written(
        FIRST,
        CHOICE.format("LE"),
        "tensor<2x6xf32>",
        _transposed(lax.min, np.inf),
        (np.round(floats(2, 6)), floats(2, 3, seed=1)),
    ),
    "reversed windows": Written(
        "%x: tensor<2x3x8x8xf32>, %k: tensor<4x3x3x2xf32>",
        """%y = stablehlo.convolution(%x, %k)
          dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1],
          window = {stride = [2, 1], pad = [[1, 0], [0, 2]], reverse = [true, false]}
          {batch_group_count = 1 : i64, feature_group_count = 1 : i64,
           precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]}
          : (tensor<2x3x8x8xf32>, tensor<4x3x3x2xf32>) -> tensor<2x4x4x9xf32>""",
        "tensor<2x4x4x9xf32>",
        lambda x, k: lax.conv_general_dilated(
            x, k[:, :, ::-1], (2, 1), [(1, 0), (0, 2)], precision="highest"
        ),
        (floats(2, 3, 8, 8), floats(4, 3, 3, 2, seed=1)),
    ),
    "groups of examples": Written(
        "%x: tensor<4x3x8xf32>, %k: tensor<4x3x3xf32>",
        """%y = stablehlo.convolution(%x, %k) dim_numbers = [b, f, 0]x[o, i, 0]->[b, f, 0],
          window = {} {batch_group_count = 2 : i64, feature_group_count = 1 : i64,
           precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]}
          : (tensor<4x3x8xf32>, tensor<4x3x3xf32>) -> tensor<2x4x6xf32>""",
        "tensor<2x4x6xf32>",
        lambda x, k: lax.conv_general_dilated(
            x, k, (1,), "VALID", batch_group_count=2, precision="highest"
        ),
        (floats(4, 3, 8), floats(4, 3, 3, seed=1)),
    ),
    "index vectors first": Written(
        "%x: tensor<3x4xf32>, %i: tensor<2x5xi32>",
        """%y = "stablehlo.gather"(%x, %i) <{dimension_numbers = #stablehlo.gather<
            collapsed_slice_dims = [0, 1], start_index_map = [1, 0], index_vector_dim = 0>,
          slice_sizes = array<i64: 1, 1>, indices_are_sorted = false}>
          : (tensor<3x4xf32>, tensor<2x5xi32>) -> tensor<5xf32>""",
        "tensor<5xf32>",
        lambda x, i: x[jnp.clip(i[1], 0, 2), jnp.clip(i[0], 0, 3)],
        (floats(3, 4), integers(2, 5, high=6) - 1),
    ),
    "taken away at": Written(
        "%x: tensor<5xf32>, %i: tensor<1x4xi32>, %u: tensor<4xf32>",
        """%y = "stablehlo.scatter"(%x, %i, %u) <{scatter_dimension_numbers = #stablehlo.scatter<
            inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 0>,
          indices_are_sorted = false, unique_indices = false}> ({
          ^bb0(%l: tensor<f32>, %r: tensor<f32>):
            %t = stablehlo.subtract %l, %r : tensor<f32>
            stablehlo.return %t : tensor<f32>
        }) : (tensor<5xf32>, tensor<1x4xi32>, tensor<4xf32>) -> tensor<5xf32>""",
        "tensor<5xf32>",
        lambda x, i, u: x.at[jnp.where(i[0] < 0, 9, i[0])].add(-u, mode="drop"),
        (floats(5), np.array([[4, 0, -1, 7]], np.int32), floats(4, seed=1)),
    ),
    "swapped sum": Written(
        "%x: tensor<3x4xf32>",
        """%z = stablehlo.constant dense<0.0> : tensor<f32>
        %y = stablehlo.reduce(%x init: %z) across dimensions = [1]
          : (tensor<3x4xf32>, tensor<f32>) -> tensor<3xf32>
          reducer(%l: tensor<f32>, %r: tensor<f32>) {
            %t = stablehlo.add %r, %l : tensor<f32>
            stablehlo.return %t : tensor<f32> }""",
        "tensor<3xf32>",
        lambda x: x.sum(1),
        (floats(3, 4),),
    ),
    "between numbers": Written(
        "%l: tensor<f32>, %x: tensor<4xf32>, %h: tensor<f32>",
        """%y = stablehlo.clamp %l, %x, %h
          : (tensor<f32>, tensor<4xf32>, tensor<f32>) -> tensor<4xf32>""",
        "tensor<4xf32>",
        lambda low, x, high: jnp.minimum(jnp.maximum(low, x), high),
        (np.float32(-0.5), floats(4), np.float32(0.5)),
    ),
    "halves of words": Written(
        "%x: tensor<4xf32>",
        "%y = stablehlo.bitcast_convert %x : (tensor<4xf32>) -> tensor<4x2xui16>",
        "tensor<4x2xui16>",
        lambda x: lax.bitcast_convert_type(x, jnp.uint16),
        (floats(4),),
    ),
    "total order": Written(
        "%x: tensor<4xf32>, %v: tensor<4xf32>",
        """%y = stablehlo.compare LT, %x, %v, TOTALORDER
          : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>""",
        "tensor<4xi1>",
        lambda x, v: jnp.array([True, False, True, False]) & (x == x[0]) | jnp.signbit(x),
        (np.array([-0.0, 0.0, -np.nan, 1.0], np.float32), np.array([0.0, -0.0, -5, 1], np.float32)),
    ),
    "counted down": Written(
        "%x: tensor<4xf32>",
        """%n = stablehlo.constant dense<3> : tensor<i32>
        %one = stablehlo.constant dense<1> : tensor<i32>
        %i, %y = stablehlo.while(%c = %n, %v = %x) : tensor<i32>, tensor<4xf32>
          cond {
            %z = stablehlo.constant dense<0> : tensor<i32>
            %g = stablehlo.compare GT, %c, %z : (tensor<i32>, tensor<i32>) -> tensor<i1>
            stablehlo.return %g : tensor<i1>
          } do {
            %d = stablehlo.subtract %c, %one : tensor<i32>
            %f = stablehlo.convert %d : (tensor<i32>) -> tensor<f32>
            %b = stablehlo.broadcast_in_dim %f, dims = [] : (tensor<f32>) -> tensor<4xf32>
            %s = stablehlo.sine %v : tensor<4xf32>
            %w = stablehlo.add %s, %b : tensor<4xf32>
            stablehlo.return %d, %w : tensor<i32>, tensor<4xf32>
          }""",
        "tensor<4xf32>",
        lambda x: lax.fori_loop(0, 3, lambda i, v: jnp.sin(v) + (2 - i).astype(jnp.float32), x),
        (floats(4),),
    ),
}
# What has a useful derivative: not bits, not comparisons.
WITHOUT_SLOPES = ("halves of words", "total order")
