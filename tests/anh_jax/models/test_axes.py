import jax
import jax.numpy as jnp
import pytest

from anh_jax.errors import ProgramError
from anh_jax.models.axes import constrain, spec_of
from anh_jax.models.model import parameter_tensors
from anh_jax.training.mesh import make_mesh


def test_names_become_mesh_axes():
    assert spec_of(("batch", None, "heads")) == (("data", "fsdp"), (), ("tensor",))
    with pytest.raises(ProgramError, match="logical axis 'rows': unknown"):
        spec_of(("rows",))


def test_constraints_do_nothing_outside_a_mesh_and_split_inside_one():
    array = jnp.zeros((8, 4))
    assert constrain(array, "batch", None) is array
    with jax.set_mesh(make_mesh(data=2, fsdp=4)):
        split = jax.jit(lambda x: constrain(x, "batch", None))(array)
    assert split.sharding.shard_shape(split.shape) == (1, 4)


def draw(key):
    return {
        "a": {"query": jnp.zeros((4, 8)), "bias": jnp.zeros((8,))},
        "b": {"query": jnp.zeros((4, 8))},
    }


def test_the_longest_ending_names_the_dimensions():
    tensors = parameter_tensors(draw, {"query": ("embed", "heads"), "b/query": ("embed", None)})
    assert tensors["a"]["query"].spec == (("fsdp",), ("tensor",))
    assert tensors["b"]["query"].spec == (("fsdp",), ())
    assert tensors["a"]["bias"].spec == ((),)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ProgramError, match="parameter a/bias: 1 dimensions"):
        parameter_tensors(draw, {"bias": ("embed", "heads")})
    with pytest.raises(ProgramError, match="axes of kernel: no parameter's path ends so"):
        parameter_tensors(draw, {"kernel": ("embed", "heads")})
