"""Between a signature's words and jax's: dtype names, abstract values, shardings."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.errors import ProgramError
from anh_jax.program.signature import BATCH, Shape, Spec, Tensor

KEY_DTYPE = "key<fry>"
_PLAIN = frozenset(
    (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64"),
    )
)


def dtype_name(dtype: Any) -> str:
    """Return the signature's name of a dtype: numpy's, or `key<fry>` for threefry keys.

    Raises:
        ProgramError: programs do not exchange arrays of that dtype.
    """
    name = str(dtype) if jnp.issubdtype(dtype, jax.dtypes.extended) else jnp.dtype(dtype).name
    if name != KEY_DTYPE and name not in _PLAIN:
        raise ProgramError(
            f"dtype {name}: not one that programs exchange; use {KEY_DTYPE} or a number type"
        )
    return name


def dtype_of(name: str) -> Any:
    """Return the dtype that a signature names.

    Raises:
        ProgramError: no such dtype.
    """
    if name == KEY_DTYPE:
        return _key_dtype()
    if name not in _PLAIN:
        raise ProgramError(f"dtype {name!r}: not one that programs exchange")
    return jnp.dtype(name)


def mlir_type(shape: Shape, dtype: str) -> str:
    """Return the MLIR text of the tensor type that carries such an array; keys are two words."""
    if dtype == KEY_DTYPE:
        return mlir_type((*shape, 2), "uint32")
    sizes = ["?" if size == BATCH else str(size) for size in shape]
    return f"tensor<{'x'.join([*sizes, _mlir_element(dtype)])}>"


def abstract(shape: tuple[Any, ...], dtype: str) -> jax.ShapeDtypeStruct:
    """Return the abstract value of that shape and dtype name."""
    return jax.ShapeDtypeStruct(shape, dtype_of(dtype))


def tensor_like(value: Any, spec: Spec = ()) -> Tensor:
    """Describe an array or abstract value of static shape."""
    return Tensor(tuple(int(size) for size in value.shape), dtype_name(value.dtype), spec)


def partition_spec(spec: Spec) -> PartitionSpec:
    """Return jax's form of a spec: None, one axis name, or several, for each dimension."""
    return PartitionSpec(*(axes[0] if len(axes) == 1 else axes or None for axes in spec))


def sharding_of(mesh: Mesh, spec: Spec) -> NamedSharding:
    """Return the sharding that a spec means on `mesh`."""
    return NamedSharding(mesh, partition_spec(spec))


def shape_text(shape: tuple[Any, ...], dtype: str) -> str:
    """Return shape and dtype as error messages write them, such as `float32[8,b]`."""
    return f"{dtype}[{','.join(str(size) for size in shape)}]"


@functools.cache
def _key_dtype() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype


def _mlir_element(dtype: str) -> str:
    if dtype == "bool":
        return "i1"
    if dtype == "bfloat16":
        return "bf16"
    return dtype.replace("uint", "ui").replace("int", "i").replace("float", "f")
