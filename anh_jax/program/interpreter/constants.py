"""Constants of a program as numpy arrays, bit for bit."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from anh_jax.errors import ProgramError
from anh_jax.program.interpreter.bindings import ir

_DTYPES: dict[str, np.dtype[Any]] = {
    "i1": np.dtype(bool),
    **{f"i{n}": np.dtype(f"int{n}") for n in (8, 16, 32, 64)},
    **{f"ui{n}": np.dtype(f"uint{n}") for n in (8, 16, 32, 64)},
    "f16": np.dtype("float16"),
    "f32": np.dtype("float32"),
    "bf16": np.dtype(jnp.bfloat16),
    "f8E4M3FN": np.dtype(jnp.float8_e4m3fn),
    "f8E5M2": np.dtype(jnp.float8_e5m2),
    "f8E4M3B11FNUZ": np.dtype(jnp.float8_e4m3b11fnuz),
    "f8E4M3FNUZ": np.dtype(jnp.float8_e4m3fnuz),
    "f8E5M2FNUZ": np.dtype(jnp.float8_e5m2fnuz),
}
_DENSE = re.compile(r"dense<(.*)>\s*:\s*tensor<", re.DOTALL)


def element_dtype(text: str) -> np.dtype[Any]:
    """Return the dtype of an MLIR element type.

    Raises:
        ProgramError: no numerics class computes in it.
    """
    if text not in _DTYPES:
        raise ProgramError(
            f"element type {text}: the interpreter evaluates {', '.join(sorted(_DTYPES))}"
        )
    return _DTYPES[text]


def constant(attribute: Any) -> NDArray[Any]:
    """Return the array a dense attribute holds, NaN payloads included."""
    kind: Any = ir.ShapedType(attribute.type)
    dtype = element_dtype(str(kind.element_type))
    shape = tuple(kind.shape)
    try:
        found = np.array(attribute)
    except TypeError:
        # The bindings give no buffer for types that Python's buffer protocol does not name.
        return _from_text(attribute, dtype, shape)
    return found.astype(dtype, copy=False).reshape(shape)


def _from_text(attribute: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    dense = _DENSE.search(str(attribute))
    if dense is None:
        raise ProgramError(f"constant of {dtype.name}{list(shape)}: cannot be read")
    text = dense.group(1).strip()
    if text.startswith('"0x'):
        data = bytes.fromhex(text.strip('"')[2:])
        return _filled(np.frombuffer(data, dtype), shape)
    words = re.findall(r"[^\s,\[\]]+", text)
    return _filled(np.array([_number(word, dtype) for word in words], dtype), shape)


def _number(word: str, dtype: np.dtype[Any]) -> Any:
    if word.startswith("0x"):
        bits = np.dtype(f"uint{8 * dtype.itemsize}")
        return np.array(int(word, 16), bits).view(dtype)[()]
    return np.array(float(word), dtype)[()]


def _filled(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape).copy()
    return values.reshape(shape)
