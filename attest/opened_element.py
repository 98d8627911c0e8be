"""One element of a committed tensor: its bytes, out of an opened tile that leads to a root."""

import math
from dataclasses import dataclass

from attest.digest_tree import Path, path_text, tile_dims
from attest.file_fields import hold
from attest.opening import Opening
from attest.tensor_header import TensorHeader


@dataclass(frozen=True, slots=True)
class Element:
    """The bytes of one element, little endian, and the header of the tensor that it is in."""

    header: TensorHeader
    data: bytes

    @property
    def form(self) -> tuple[object, ...]:
        """Return what a tensor of this place has to be besides its values."""
        header = self.header
        return (header.kind, header.dtype, header.implementation, header.dims)


def place_of(element: int, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Return where the element of that number, in C order, lies along each axis."""
    place: list[int] = []
    for size in reversed(dims):
        element, at = divmod(element, size)
        place.append(at)
    return tuple(reversed(place))


def tile_of(element: int, header: TensorHeader) -> tuple[int, ...]:
    """Return the index of the tile that holds an element."""
    sizes = tile_dims(header.dims, header.grid)
    place = place_of(element, header.dims)
    return tuple(at // size for at, size in zip(place, sizes, strict=True))


def element_of(opening: Opening, element: int) -> Element:
    """Return an element of a verified opening, by its number in the tensor.

    Raises:
        RefusedError: the tensor has no such element, or the opened tile is not the one it is in.
    """
    header = opening.header
    name = path_text(header.path)
    hold(element < math.prod(header.dims), "element", f"{name} has no element {element}")
    hold(opening.index == tile_of(element, header), "element", f"{name}: is not in this tile")
    sizes = tile_dims(header.dims, header.grid)
    at = 0
    for place, size in zip(place_of(element, header.dims), sizes, strict=True):
        at = at * size + place % size
    start = at * header.itemsize
    return Element(header, opening.tile[start : start + header.itemsize])


def by_path(openings: tuple[Opening, ...], element: int) -> dict[Path, Element]:
    """Return the elements of openings by the paths of their tensors; RefusedError for a second."""
    found: dict[Path, Element] = {}
    for opening in openings:
        path = opening.header.path
        hold(path not in found, "openings", f"{path_text(path)} is opened twice")
        found[path] = element_of(opening, element)
    return found
