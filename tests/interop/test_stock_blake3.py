"""A reader who has the `blake3` package and docs/digest_bytes.md verifies openings without us."""

import base64
import dataclasses
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile
from attest.digest_tree import ELEMENT_BYTES
from attest.errors import RefusedError
from attest.opening import Opening, verify_opening

# What follows takes nothing from this project but the widths of the dtypes.


def stock(level: str, *parts: bytes) -> bytes:
    return blake3(b"".join(parts), derive_key_context=f"anh v1 {level}").digest()


def climbed(level: str, value: bytes, turns: list[int], siblings: list[bytes]) -> bytes:
    for turn, sibling in zip(turns, siblings, strict=True):
        value = stock(level, sibling, value) if turn else stock(level, value, sibling)
    return value


def header_shape(header: bytes) -> tuple[int, list[int], list[int]]:
    """Return element width, dims and grid of a header."""
    (depth,), at = struct.unpack_from("<H", header, 2), 4
    for _ in range(depth):
        at += 5 + struct.unpack_from("<I", header, at + 1)[0]
    name = header[at + 1 : at + 1 + header[at]].decode()
    at += 1 + header[at]
    at += 1 + header[at] if header[1] == 1 else 0  # a key's implementation
    words = struct.unpack(f"<{2 * header[at]}Q", header[at + 1 :])
    return ELEMENT_BYTES[name], list(words[: header[at]]), list(words[header[at] :])


def leads_to(root: bytes, file: bytes) -> bool:
    """Tell whether an opening leads to a state digest, by a stock BLAKE3 alone."""
    opening = json.loads(file)
    header, tile = bytes.fromhex(opening["header"]), base64.b64decode(opening["tile"])
    siblings = [bytes.fromhex(text) for text in opening["siblings"]]
    set_siblings = [bytes.fromhex(text) for text in opening["setSiblings"]]
    width, dims, grid = header_shape(header)
    index, left = list(opening["index"]), list(grid)
    place, count = opening["setIndex"], opening["tensors"]
    if len(index) != len(grid) or any(i >= n for i, n in zip(index, grid, strict=True)):
        return False
    if len(tile) * math.prod(grid) != math.prod(dims) * width or place >= count:
        return False
    turns: list[int] = []
    while math.prod(left) > 1:
        axis = max(range(len(left)), key=lambda a: (left[a], a))
        turns.append(index[axis] & 1)
        left[axis], index[axis] = left[axis] // 2, index[axis] >> 1
    # RFC 6962, from the root down: the left part holds the largest power of two below the count.
    places: list[int] = []
    while count > 1:
        half = 1 << ((count - 1).bit_length() - 1)
        places.insert(0, int(place >= half))
        place, count = (place - half, count - half) if place >= half else (place, half)
    if len(siblings) != len(turns) or len(set_siblings) != len(places):
        return False
    value = climbed("node", stock("tile", tile), turns, siblings)
    value = stock("tensor", struct.pack("<I", len(header)), header, value)
    value = climbed("set", value, places, set_siblings)
    words = struct.pack("<QI", opening["step"], opening["tensors"])
    return stock("state", words, bytes.fromhex(opening["structure"]), value) == root


# Up to here.


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    values = np.random.default_rng(0)
    return {
        "parameters": {
            "kernel": values.standard_normal((256, 512), dtype=np.float32),
            "stack": values.integers(0, 2**16, (4, 64, 256), np.uint16),
            "bias": values.standard_normal(33, dtype=np.float32),
        },
        "cursor": np.int64(7),
        "mask": np.array([True, False, True]),
    }


def test_stock_blake3_and_the_client_accept_every_honest_opening(state: dict[str, Any]) -> None:
    digest = tree_digest(state, step=12)
    opened = 0
    for tensor in digest.tensors:
        grid = header_shape(tensor.header)[2]
        for index in {(0,) * len(grid), tuple(n - 1 for n in grid), tuple(n // 2 for n in grid)}:
            file = open_tile(state, digest, path=tensor.path, index=index)
            assert leads_to(digest.root, file)
            verify_opening(file, root=digest.root)
            opened += math.prod(grid) > 1
    assert opened >= 4


@pytest.mark.parametrize(
    "name, value",
    [
        ("tile", lambda o: bytes([o.tile[0] ^ 1]) + o.tile[1:]),
        ("tile", lambda o: o.tile + b"\0"),
        ("index", lambda o: (o.index[0] ^ 1, *o.index[1:])),
        ("index", lambda o: (o.index[0] + o.header.grid[0], *o.index[1:])),
        ("siblings", lambda o: (*o.siblings, bytes(32))),
        ("siblings", lambda o: (bytes(32), *o.siblings[1:])),
        ("header", lambda o: dataclasses.replace(o.header, path=("parameters", "other"))),
        ("set_index", lambda o: o.set_index ^ 1),
        ("set_siblings", lambda o: (*o.set_siblings, bytes(32))),
        ("tensors", lambda o: o.tensors + 1),
        ("structure", lambda o: bytes(32)),
        ("step", lambda o: o.step + 1),
    ],
)
def test_both_refuse_the_same_changes(name: str, value: Any, state: dict[str, Any]) -> None:
    digest = tree_digest(state, step=12)
    file = open_tile(state, digest, path=("parameters", "kernel"), index=(0, 1))
    opening = Opening.from_bytes(file)
    changed = dataclasses.replace(opening, **{name: value(opening)}).to_bytes()
    assert leads_to(digest.root, file) and not leads_to(digest.root, changed)
    with pytest.raises(RefusedError):
        verify_opening(changed, root=digest.root)
