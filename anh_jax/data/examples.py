"""Model-ready examples: named arrays of one fixed shape each, and the bytes that stand for one.

The canonical bytes of an example (docs/protocol.md, "Data and batches"), all integers unsigned
and little-endian:

    "anh v1 example" || 0x00 || number of arrays (4 bytes)
    then for each array, in order of the names' bytes:
    length of the name (4 bytes) || name || length of the dtype (4 bytes) || dtype
    || number of dimensions (4 bytes) || each dimension (8 bytes) || the elements

A name matches [a-z][a-z0-9_]*; a dtype is written as numpy names it ("float32"); elements are in
C order, little-endian, bit for bit (-0.0 and NaN payloads count). The example's place in its set
is not in the bytes: the tree over the set says it.
"""

import math
import re
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

from anh_jax.errors import DataError

Examples = Mapping[str, np.ndarray]

EXAMPLE_CONTEXT = b"anh v1 example\x00"
MAX_EXAMPLES = 2**32 - 1
# `id` and `weight` are added to every batch and are no part of an example.
RESERVED = ("id", "weight")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in (
        np.bool_,
        *(np.int8, np.int16, np.int32),
        *(np.uint8, np.uint16, np.uint32),
        *(np.float16, ml_dtypes.bfloat16, np.float32),
    )
}


def checked_examples(arrays: Examples, *, where: str) -> dict[str, np.ndarray]:
    """Return the arrays sorted by name, little-endian and C-ordered, one example per row.

    Raises DataError naming `where` and the array for a name, dtype or shape that no batch can have.
    """
    if not arrays:
        raise DataError(f"{where}: no arrays; give at least one, such as image or tokens")
    for name, array in arrays.items():
        _check_array(name, array, where=where)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: arrays of unequal length ({listed}); give one row per example")
    return {name: _little_endian(arrays[name]) for name in sorted(arrays)}


def example_count(arrays: Examples) -> int:
    """Return the number of rows of the arrays."""
    return len(next(iter(arrays.values())))


def example_bytes(example: Examples) -> bytes:
    """Return the canonical bytes of one example given as arrays without the row axis.

    Raises DataError for a name or dtype that no example can have.
    """
    rows = {name: np.asarray(value)[None] for name, value in example.items()}
    return next(iter_example_bytes(checked_examples(rows, where="example")))


def iter_example_bytes(arrays: Examples) -> Iterator[bytes]:
    """Yield the canonical bytes of each row of checked arrays, in order."""
    # All rows share every byte but their elements, so the rest is made once.
    parts: list[tuple[bytes, np.ndarray]] = []
    lead = EXAMPLE_CONTEXT + len(arrays).to_bytes(4, "little")
    for name in sorted(arrays):
        array = arrays[name]
        parts.append((lead + _array_header(name, array), _rows_of_bytes(array)))
        lead = b""
    for row in range(example_count(arrays)):
        yield b"".join(piece for header, rows in parts for piece in (header, rows[row].tobytes()))


def _array_header(name: str, array: np.ndarray) -> bytes:
    shape = array.shape[1:]
    return b"".join(
        (
            len(name).to_bytes(4, "little") + name.encode("ascii"),
            len(array.dtype.name).to_bytes(4, "little") + array.dtype.name.encode("ascii"),
            len(shape).to_bytes(4, "little"),
            *(size.to_bytes(8, "little") for size in shape),
        )
    )


def _rows_of_bytes(array: np.ndarray) -> np.ndarray:
    # A view, also of a memory-mapped file: no example is read before it is asked for.
    return array.reshape(len(array), math.prod(array.shape[1:])).view(np.uint8)


def _check_array(name: str, array: np.ndarray, *, where: str) -> None:
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise DataError(
            f"{where}: array {name!r}: a name is lower-case letters, digits and _, "
            f"and neither id nor weight; rename it"
        )
    if array.dtype.name not in _DTYPES:
        raise DataError(
            f"{where}: array {name}: dtype {array.dtype.name} is not one of "
            f"{', '.join(_DTYPES)}; convert it first"
        )
    if array.ndim == 0 or len(array) > MAX_EXAMPLES or 0 in array.shape[1:]:
        raise DataError(
            f"{where}: array {name}: shape {array.shape} is no stack of examples; "
            "give one row per example, fewer than 2^32"
        )


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
