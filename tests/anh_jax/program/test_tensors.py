import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from anh_jax.errors import ProgramError
from anh_jax.program.signature import Tensor
from anh_jax.program.tensors import (
    dtype_name,
    dtype_of,
    mlir_type,
    partition_spec,
    sharding_of,
    tensor_like,
)
from anh_jax.training.mesh import make_mesh

NAMES = ("bool", "int8", "uint32", "int64", "float16", "bfloat16", "float32", "key<fry>")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_dtypes_are_each_others_inverse(name):
    assert dtype_name(dtype_of(name)) == name


@pytest.mark.parametrize("name", ["key<rbg>", "complex64", "float8_e4m3fn", "object", "f32"])
def test_other_dtypes_are_refused_by_name(name):
    with pytest.raises(ProgramError, match="not one that programs exchange"):
        dtype_of(name)


def test_keys_of_another_generator_are_refused():
    key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    with pytest.raises(ProgramError, match="dtype key<rbg>"):
        dtype_name(key.dtype)
    with pytest.raises(ProgramError, match="dtype complex64"):
        dtype_name(np.complex64)


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ((), "float32", "tensor<f32>"),
        ((4, "b"), "bfloat16", "tensor<4x?xbf16>"),
        (("b",), "uint8", "tensor<?xui8>"),
        ((3,), "bool", "tensor<3xi1>"),
        ((), "int32", "tensor<i32>"),
        ((5,), "key<fry>", "tensor<5x2xui32>"),
    ],
)
def test_types_are_those_of_mlir(shape, dtype, text):
    assert mlir_type(shape, dtype) == text


def test_specs_become_partition_specs():
    spec = (("data", "fsdp"), (), ("tensor",))
    assert partition_spec(spec) == PartitionSpec(("data", "fsdp"), None, "tensor")
    assert sharding_of(make_mesh(), ()).is_fully_replicated


def test_arrays_are_described_by_shape_and_dtype():
    assert tensor_like(jnp.zeros((2, 3), jnp.int8)) == Tensor((2, 3), "int8")
    assert tensor_like(jax.random.key(0)) == Tensor((), "key<fry>")
