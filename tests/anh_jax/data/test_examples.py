"""The canonical bytes of an example: golden vectors, and that no two examples share them."""

import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from anh_jax.data.examples import checked_examples, example_bytes, iter_example_bytes
from anh_jax.errors import DataError


def test_golden_bytes_of_one_example() -> None:
    image = np.array([[0.5, -0.0]], dtype=np.float32)
    found = example_bytes({"label": np.int32(-2), "image": image})
    assert found == (
        b"anh v1 example\x00\x02\x00\x00\x00"
        b"\x05\x00\x00\x00image\x07\x00\x00\x00float32\x02\x00\x00\x00"
        b"\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x3f\x00\x00\x00\x80"
        b"\x05\x00\x00\x00label\x05\x00\x00\x00int32\x00\x00\x00\x00"
        b"\xfe\xff\xff\xff"
    )


def test_bytes_do_not_depend_on_memory_layout() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = (image.astype(">f4"), np.asfortranarray(image), np.repeat(image, 2, axis=1)[:, ::2])
    assert {example_bytes({"x": layout}) for layout in same} == {example_bytes({"x": image})}


def test_bits_count_and_not_values() -> None:
    payload = struct.unpack("<f", b"\x01\x00\xc0\x7f")[0]
    values = [0.0, -0.0, float("nan"), payload]
    found = {example_bytes({"x": np.array(value, dtype=np.float32)}) for value in values}
    assert len(found) == 4


def test_rows_give_the_bytes_of_each_example() -> None:
    rows = {
        "b": np.arange(6, dtype=np.uint8).reshape(3, 2),
        "a": np.array([1, 2, 3], dtype=ml_dtypes.bfloat16),
    }
    each = [example_bytes({name: array[row] for name, array in rows.items()}) for row in range(3)]
    assert list(iter_example_bytes(checked_examples(rows, where="data"))) == each


def example() -> st.SearchStrategy[dict[str, np.ndarray]]:
    dtypes = st.sampled_from([np.uint8, np.int32, np.float32, np.bool_])
    array = arrays_of.arrays(dtypes, arrays_of.array_shapes(min_dims=0, max_side=3))
    return st.dictionaries(st.sampled_from(["a", "b", "a1"]), array, min_size=1)


@settings(deadline=None)
@given(first=example(), second=example())
def test_equal_bytes_mean_equal_examples(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray]
) -> None:
    def facts(arrays: dict[str, np.ndarray]) -> list[object]:
        return [(k, a.dtype.name, a.shape, a.tobytes()) for k, a in sorted(arrays.items())]

    assert (example_bytes(first) == example_bytes(second)) == (facts(first) == facts(second))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no arrays"),
        ({"Image": np.zeros((2, 1), np.float32)}, "array 'Image': a name is lower-case"),
        ({"id": np.zeros(2, np.uint32)}, "array 'id': a name is"),
        ({"weight": np.zeros(2, np.float32)}, "array 'weight': a name is"),
        ({"x": np.zeros(2, np.float64)}, "array x: dtype float64 is not one of bool, int8"),
        ({"x": np.zeros(2, np.int64)}, "array x: dtype int64 is not one of"),
        ({"x": np.array(["a"])}, "array x: dtype str32 is not one of"),
        ({"x": np.array([{}])}, "array x: dtype object is not one of"),
        ({"x": np.float32(1)}, "array x: shape () is no stack of examples"),
        ({"x": np.zeros((2, 0), np.float32)}, "array x: shape (2, 0) is no stack of examples"),
        ({"x": np.zeros(2, np.int8), "y": np.zeros(3, np.int8)}, "unequal length (x 2, y 3)"),
    ],
)
def test_arrays_that_are_no_examples_are_refused(
    arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        checked_examples(arrays, where="data")
    assert str(caught.value).startswith("data: ")
    assert message in str(caught.value)
