import jax
import numpy as np
import pytest

from anh_jax.errors import ConfigError
from anh_jax.program.export import export_program
from anh_jax.program.load import load_program
from anh_jax.program.signature import Tensor
from anh_jax.training.mesh import make_mesh
from anh_jax.training.state import (
    abstract_state,
    gradient_part,
    moved,
    moving_part,
    seed_words,
)


def small_init(seed):
    return {
        "key": jax.random.wrap_key_data(seed, impl="threefry2x32"),
        "step": seed[0],
        "parameters": {"w": jax.random.bits(jax.random.wrap_key_data(seed), (8, 2))},
        "optimizer": {},
    }


@pytest.fixture(scope="module")
def init():
    specs = {("parameters", "w"): (("fsdp",), ())}
    return export_program("init", small_init, {"seed": Tensor((2,), "uint32")}, output_specs=specs)


def test_a_seed_is_two_words_high_then_low():
    assert seed_words(2**32 * 3 + 5).tolist() == [3, 5]
    assert seed_words(2**64 - 1).tolist() == [2**32 - 1, 2**32 - 1]
    assert seed_words(0).dtype == np.uint32
    for seed in (-1, 2**64):
        with pytest.raises(ConfigError, match="training.seed"):
            seed_words(seed)


def test_the_abstract_state_is_that_of_init_on_the_mesh(init):
    mesh = make_mesh(fsdp=4)
    state = load_program(init, mesh)(seed_words(1))
    described = abstract_state(init.signature, mesh)
    assert jax.tree.structure(described) == jax.tree.structure(state)
    for expected, found in zip(jax.tree.leaves(described), jax.tree.leaves(state), strict=True):
        assert (expected.shape, expected.dtype) == (found.shape, found.dtype)
        assert found.sharding.is_equivalent_to(expected.sharding, found.ndim)


def test_parts_of_the_state_are_what_the_programs_take():
    state = {"key": 1, "step": 2, "parameters": 3, "optimizer": 4}
    assert gradient_part(state) == {"parameters": 3, "step": 2}
    assert moving_part(state) == {"parameters": 3, "step": 2, "optimizer": 4}
    updated = {"parameters": 5, "step": 6, "optimizer": 7}
    assert moved(state, updated) == {"key": 1, **updated}
    assert state["step"] == 2
