import jax
import jax.numpy as jnp
import pytest

from anh_jax.models.initializers import uniform
from anh_jax.program.export import export_program
from anh_jax.program.init_check import first_inexact, init_kind
from anh_jax.program.signature import Tensor

SEED = {"seed": Tensor((2,), "uint32")}


def exported(function):
    def init(seed):
        return {"x": function(jax.random.wrap_key_data(seed, impl="threefry2x32"))}

    return export_program("init", init, SEED)


def bits(key, dtype=jnp.uint16):
    return jax.random.bits(key, (8,), dtype)


EXACT = {
    "our initializer": lambda key: uniform(-3)(key, (4, 4)),
    "one initializer per layer": lambda key: jax.vmap(lambda k: uniform(0)(k, (4,)))(
        jax.random.split(key, 3)
    ),
    "constants": lambda key: jnp.full((4,), 0.1, jnp.float32),
    "integers": lambda key: bits(key, jnp.uint32) * jnp.uint32(7),
    "moved": lambda key: jnp.flip(uniform(2)(key, (2, 4)).T[:, :1].reshape(4)),
}
INEXACT = {
    "normal": (lambda key: jax.random.normal(key, (4,)), "stablehlo"),
    "a scale that is no power of two": (
        lambda key: bits(key).astype(jnp.float32) * jnp.float32(0.1),
        "stablehlo.multiply",
    ),
    "a scale among which one is none": (
        lambda key: (
            bits(key).astype(jnp.float32) * jnp.array([1, 2, 4, 8, 16, 32, 64, 3], jnp.float32)
        ),
        "stablehlo.multiply",
    ),
    "a scale that underflows": (
        lambda key: bits(key).astype(jnp.float32) * jnp.float32(2.0**-100),
        "stablehlo.multiply",
    ),
    "a product of draws": (lambda key: bits(key).astype(jnp.float32) ** 2, "stablehlo.multiply"),
    "a conversion that rounds": (
        lambda key: bits(key, jnp.uint32).astype(jnp.float32),
        "stablehlo.convert",
    ),
    "a sum": (lambda key: bits(key).astype(jnp.float32) + jnp.float32(1), "stablehlo.add"),
    "a quotient": (lambda key: bits(key).astype(jnp.float32) / jnp.float32(3), "stablehlo.divide"),
    "a narrower float": (
        lambda key: bits(key).astype(jnp.float32).astype(jnp.bfloat16),
        "stablehlo.convert",
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_integer_bits_and_powers_of_two_are_exact(name):
    stored = exported(EXACT[name])
    assert first_inexact(stored) is None
    assert init_kind(stored) == "exact"


@pytest.mark.parametrize("name", INEXACT)
def test_whatever_may_round_makes_an_init_inexact(name):
    function, operator = INEXACT[name]
    stored = exported(function)
    found = first_inexact(stored)
    assert found is not None and found.startswith(operator)
    assert init_kind(stored) == "class"


def test_shipped_models_start_exact(mlp_programs, lm_init):
    assert init_kind(mlp_programs.stored["init"]) == "exact"
    assert init_kind(lm_init.stored) == "exact"
