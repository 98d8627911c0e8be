"""An element is read out of the one tile that holds it, wherever tiles are cut."""

import math
import struct

import pytest

from attest.errors import RefusedError
from attest.opened_element import by_path, element_of, place_of, tile_of
from attest.opening import Opening
from attest.tensor_header import tensor_header

DIMS = (256, 128)
HEADER = tensor_header(("w",), "float32", DIMS)


def opening(index: tuple[int, ...]) -> Opening:
    """Return a tile of a tensor whose elements are their own numbers."""
    sizes = tuple(dim // count for dim, count in zip(DIMS, HEADER.grid, strict=True))
    rows = range(index[0] * sizes[0], (index[0] + 1) * sizes[0])
    columns = range(index[1] * sizes[1], (index[1] + 1) * sizes[1])
    numbers = [row * DIMS[1] + column for row in rows for column in columns]
    tile = struct.pack(f"<{len(numbers)}f", *numbers)
    return Opening("blake3", HEADER, index, tile, (), 0, (), 1, bytes(32), 1)


def test_element_is_the_one_of_that_number() -> None:
    assert math.prod(HEADER.grid) > 1, "one tile would show nothing"
    for element in (0, 1, 127, 128, 5000, math.prod(DIMS) - 1):
        found = element_of(opening(tile_of(element, HEADER)), element)
        assert struct.unpack("<f", found.data) == (float(element),)
    assert place_of(130, DIMS) == (1, 2)


def test_element_of_another_tile_is_refused() -> None:
    last = math.prod(DIMS) - 1
    with pytest.raises(RefusedError, match="is not in this tile"):
        element_of(opening((0, 0)), last)


def test_element_that_the_tensor_has_not_is_refused() -> None:
    with pytest.raises(RefusedError, match="has no element"):
        element_of(opening((0, 0)), math.prod(DIMS))


def test_tensor_that_is_opened_twice_is_refused() -> None:
    with pytest.raises(RefusedError, match="opened twice"):
        by_path((opening((0, 0)), opening((0, 0))), 0)
