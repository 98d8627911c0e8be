import jax
import jax.numpy as jnp
import pytest
from jax._src.lib.mlir import ir

from anh_jax.errors import ProgramError
from anh_jax.program import stablehlo
from anh_jax.program.export import export_program
from anh_jax.program.signature import StoredProgram, Tensor
from anh_jax.program.update_check import check_elementwise

ARGUMENTS = {"w": Tensor((4, 4), "float32"), "constants": Tensor((3,), "float32")}

MIXING = {
    "reduce": (lambda w, c: w - jnp.mean(w), "stablehlo.reduce"),
    "dot_general": (lambda w, c: w @ w, "stablehlo.dot_general"),
    "sort": (lambda w, c: jnp.sort(w), "stablehlo.sort"),
    "transpose": (lambda w, c: w.T, "stablehlo.transpose"),
    "reverse": (lambda w, c: w[::-1], "stablehlo.reverse"),
    "gather": (
        lambda w, c: jnp.take(w, jnp.array([0, 0, 1, 1]), axis=0, mode="clip"),
        "stablehlo.(gather|broadcast_in_dim)",
    ),
    "reshape": (lambda w, c: (w.reshape(16) * c[0]).reshape(4, 4), "stablehlo.reshape"),
    "slice": (lambda w, c: jnp.broadcast_to(w[0, 0], (4, 4)), "stablehlo.slice"),
    "slice of what was computed": (
        lambda w, c: w * (jnp.sqrt(c) * c)[:1].reshape(()),
        "stablehlo.slice",
    ),
    "row broadcast": (
        lambda w, c: w + jnp.broadcast_to(c[:1], (4,))[None],
        "stablehlo.broadcast_in_dim",
    ),
    "transposing broadcast": (
        lambda w, c: jax.lax.broadcast_in_dim(w, (4, 1, 4), (0, 2)).reshape(4, 4),
        "stablehlo.broadcast_in_dim",
    ),
    "power": (lambda w, c: w * jnp.power(jnp.float32(0.9), c[0]), "stablehlo.power"),
    "exponential": (lambda w, c: w * jnp.exp(c[0]), "stablehlo.exponential"),
    "while": (
        lambda w, c: jax.lax.fori_loop(0, 3, lambda _, x: x * c[0], w),
        "stablehlo.while",
    ),
    "concatenate": (
        lambda w, c: jnp.concatenate([w[1:], w[:1]]),
        "stablehlo.(slice|concatenate)",
    ),
}


def exported(function):
    def update(w, constants):
        return {"w": function(w, constants)}

    return export_program("update", update, ARGUMENTS)


@pytest.mark.parametrize("name", MIXING)
def test_an_update_that_mixes_elements_is_refused_by_operator(name):
    function, operator = MIXING[name]
    with pytest.raises(ProgramError, match=f"operator {operator} is not elementwise"):
        check_elementwise(exported(function))


def test_scalars_from_the_constants_may_reach_every_element():
    def scaled(w, constants):
        rate = jax.lax.slice(constants, (1,), (2,)).reshape(())
        return jnp.where(rate > 0, jnp.sqrt(jnp.abs(w)) * rate, jnp.sign(w) / 3)

    check_elementwise(exported(scaled))


def test_a_broadcast_that_permutes_dimensions_is_refused():
    # jax cannot write one; another producer of StableHLO can.
    text = """module @update { func.func public @main(%w: tensor<4x4xf32>, %c: tensor<3xf32>)
      -> tensor<4x4xf32> {
        %0 = stablehlo.broadcast_in_dim %w, dims = DIMS : (tensor<4x4xf32>) -> tensor<4x4xf32>
        return %0 : tensor<4x4xf32> } }"""
    signature = exported(lambda w, c: w).signature
    programs: list[StoredProgram] = []
    for dims in ("[0, 1]", "[1, 0]"):
        with stablehlo.context():
            module = ir.Module.parse(text.replace("DIMS", dims))
            programs.append(StoredProgram(stablehlo.serialise(module, "1.8.0"), signature))
    check_elementwise(programs[0])
    with pytest.raises(ProgramError, match="broadcast_in_dim is not elementwise"):
        check_elementwise(programs[1])
