"""What a digest takes, counted from headers, against digests that were made."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from anh_jax.digest.cost import opening_bytes, tree_cost
from anh_jax.digest.host import tree_digest
from anh_jax.digest.layout import lay_out
from anh_jax.digest.opening import open_tile
from anh_jax.digest.placement import SHARED_BYTES, PrimeMesh, place
from anh_jax.digest.tensor_cut import cut_tensor
from attest import digest_tree, opening
from attest.digest_tree import DigestLevel
from attest.tensor_header import TensorHeader, tensor_header

shapes = st.lists(st.integers(1, 512), max_size=3).map(tuple)


def headers_of(tree: object) -> list[TensorHeader]:
    return [slot.header for slot in lay_out(tree).layout.slots]


def small_tree() -> dict[str, np.ndarray]:
    values = np.arange(96 * 2048, dtype=np.float32)
    return {"a": values.reshape(96, 2048), "b": values[:7], "c": values[0], "d": values[:8192]}


@given(dims=st.lists(shapes, min_size=1, max_size=6), power=st.integers(0, 10))
def test_chips_share_large_tensors_and_each_hashes_the_small_ones(
    dims: list[tuple[int, ...]], power: int
) -> None:
    headers = [tensor_header((f"{i}",), "float32", shape) for i, shape in enumerate(dims)]
    cost = tree_cost(headers, chips=1 << power)
    sizes = [4 * math.prod(shape) for shape in dims]
    assert cost.size == sum(sizes) and cost.tensors == len(dims)
    small = sum(size for size in sizes if size <= SHARED_BYTES)
    assert cost.chip_size >= small + sum(s >> power for s in sizes if s > SHARED_BYTES)
    assert tree_cost(headers, chips=1).chip_size == cost.size
    assert tree_cost(headers, chips=1).gathered == 0


@pytest.mark.parametrize("chips", [1, 2, 8])
def test_cost_is_that_of_the_cuts_that_devices_follow(chips: int) -> None:
    tree = {
        **small_tree(),
        "large": np.zeros((1024, 2048), np.uint16),
        "odd": np.zeros((3, 40_001), np.float32),  # one tile that cannot be shared
        "few": np.zeros((3, 8192), np.float32),  # fewer tiles than chips
    }
    headers = headers_of(tree)
    mesh = PrimeMesh.over(Mesh(np.array(jax.devices()[:chips]), ("data",)))
    held = [((),) * len(header.dims) for header in headers]
    cuts = [
        cut_tensor(mesh, h, place(mesh, at, h, every_replica=False))
        for h, at in zip(headers, held, strict=True)
    ]
    cost = tree_cost(headers, chips=chips)
    hashed = sum(math.prod(cut.grid) * cut.header.tile_bytes for cut in cuts)
    assert cost.chip_size == hashed
    subtrees = sum(math.prod(cut.subtrees) for cut in cuts)
    assert cost.gathered == (32 * chips * subtrees if chips > 1 else 0)


def test_hashes_are_as_many_as_the_oracle_computes() -> None:
    tree = small_tree()
    counted = 0
    real = digest_tree.level_hash("blake3")

    def counting(level: DigestLevel, material: bytes) -> bytes:
        nonlocal counted
        counted += 1
        return real(level, material)

    leaves = {name: np.asarray(value) for name, value in tree.items()}
    digest = tree_digest(leaves, step=3)
    tops = []
    for header in headers_of(leaves):
        counted += 2 * math.prod(header.grid) - 1  # tiles, and the nodes above them
        top = next(t.root for t in digest.tensors if t.path == header.path)
        counted += 1
        tops.append(top)
    counting(DigestLevel.STRUCTURE, b"")
    root = digest_tree.set_root(counting, tops)
    assert root == digest.set_root
    counting(DigestLevel.STATE, b"")
    assert tree_cost(headers_of(leaves), chips=4).hashes == counted


@pytest.mark.parametrize("alg", ["blake3", "sha256"])
@pytest.mark.parametrize("place", range(4))
def test_opening_has_the_size_of_a_real_one(place: int, alg: str) -> None:
    tree = small_tree()
    headers = headers_of(tree)
    header = headers[place]
    digest = tree_digest(tree, step=7, alg=alg)
    index = tuple(count - 1 for count in header.grid)
    made = open_tile(tree, digest, path=header.path, index=index)
    assert opening_bytes(headers, place, alg=alg) == len(made)
    assert opening.Opening.from_bytes(made).header == header
