import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.digest.placement import PrimeMesh, place, spec
from attest.tensor_header import TensorHeader, tensor_header

P = PartitionSpec


def mesh(*sizes: int) -> Mesh:
    devices = np.array(jax.devices()[: math.prod(sizes)])
    return Mesh(devices.reshape(sizes), ("a", "b", "c")[: len(sizes)])


def header(*dims: int) -> TensorHeader:
    return tensor_header(("w",), "float32", dims)


SPECS = [
    P(), P("a"), P("b"), P(None, "a"), P("a", "b"), P("b", "a"), P(("a", "b")), P(("b", "a")),
    P("b", ("a", "c")), P(("c", "a", "b")), P(None, ("c", "b")),
]  # fmt: skip
MESHES = [(2, 2, 2), (1, 4, 2), (4, 2, 1), (8, 1, 1), (1, 1, 1), (1, 3, 2)]


@given(st.sampled_from(MESHES), st.sampled_from(MESHES), st.sampled_from(SPECS))
def test_sharding_is_the_same_in_axes_of_another_mesh(
    ours: tuple[int, ...], theirs: tuple[int, ...], cut: PartitionSpec
):
    prime = PrimeMesh.over(mesh(*ours))
    sharding = NamedSharding(mesh(*theirs), cut)
    axes = prime.axes(sharding, 2)
    if math.prod(ours) != math.prod(theirs):
        assert axes is None
        return
    assert axes is not None
    assert prime.sharding(axes).is_equivalent_to(sharding, 2)


@given(st.sampled_from(MESHES), st.sampled_from(SPECS))
def test_blocks_are_where_jax_puts_them(sizes: tuple[int, ...], cut: PartitionSpec):
    prime = PrimeMesh.over(mesh(*sizes))
    dims = (48, 96)
    axes = prime.axes(NamedSharding(mesh(*sizes), cut), 2)
    assert axes is not None
    parts = prime.parts(axes)
    extents = [dim // part for dim, part in zip(dims, parts, strict=True)]
    indices = prime.sharding(axes).devices_indices_map(dims)
    for device, block in zip(prime.mesh.devices.flat, prime.blocks(axes), strict=True):
        starts = [part.start or 0 for part in indices[device]]
        place = [start // extent for start, extent in zip(starts, extents, strict=True)]
        assert block == np.ravel_multi_index(place, parts)


def test_meshes_without_a_common_refinement_or_order_have_no_common_axes():
    prime = PrimeMesh.over(mesh(3, 2))
    assert prime.axes(NamedSharding(mesh(2, 3), P("a")), 1) is None
    turned = Mesh(np.array(jax.devices()[:6][::-1]).reshape(3, 2), ("a", "b"))
    assert prime.axes(NamedSharding(turned, P("a")), 1) is None


@given(
    st.sampled_from(MESHES),
    st.sampled_from(SPECS),
    st.sampled_from([(24, 24), (96, 96), (768, 768), (8192, 96), (1536, 3), (24, 65536)]),
    st.booleans(),
)
def test_every_cut_is_made_of_whole_tiles(
    sizes: tuple[int, ...], cut: PartitionSpec, dims: tuple[int, int], every_replica: bool
):
    prime, array = PrimeMesh.over(mesh(*sizes)), header(*dims)
    held = prime.axes(NamedSharding(mesh(*sizes), cut), 2)
    assert held is not None
    placement = place(prime, held, array, every_replica=every_replica)
    parts = prime.parts(placement.cut)
    assert all(g % part == 0 for g, part in zip(array.grid, parts, strict=True))
    kept = all(g % part == 0 for g, part in zip(array.grid, prime.parts(held), strict=True))
    assert (placement.note is None) == kept
    if kept and every_replica:
        assert placement.cut == held
    if kept:  # replicas may cut their blocks further, never otherwise
        assert all(
            now[: len(before)] == before for now, before in zip(placement.cut, held, strict=True)
        )


def placed(on: Mesh, cut: PartitionSpec, *dims: int, **options: Any):
    prime = PrimeMesh.over(on)
    axes = prime.axes(NamedSharding(on, cut), len(dims))
    assert axes is not None
    return prime, place(prime, axes, header(*dims), every_replica=options.get("every", False))


def test_large_tensor_that_splits_tiles_keeps_or_moves_its_axes():
    # 4096 x 256 in 16 KiB tiles has fewer than eight tiles along its last axis.
    prime, placement = placed(mesh(8), P(None, "a"), 4096, 256, every=True)
    grid = header(4096, 256).grid
    assert grid[1] < 8 <= grid[0]
    assert math.prod(prime.parts(placement.cut)) == 8
    assert placement.cut[1] == ("d0", "d1", "d2")[: grid[1].bit_length() - 1]
    assert placement.note is not None
    assert "cut anew" in placement.note


def test_small_tensor_that_splits_tiles_is_copied():
    _, placement = placed(mesh(8), P("a"), 24, 8)
    assert placement.cut == ((), ())
    assert placement.note == "w: its sharding splits tiles; copied to every device to be hashed"


def test_replicas_share_a_large_tensor_along_its_topmost_merges():
    prime, placement = placed(mesh(2, 2, 2), P("a"), 1024, 1024)
    assert sorted(prime.parts(placement.cut)) == [2, 4]
    _, small = placed(mesh(2, 2, 2), P("a"), 128, 128)
    assert spec(small.cut) == P(("d0",), None)
    _, audited = placed(mesh(2, 2, 2), P("a"), 1024, 1024, every=True)
    assert spec(audited.cut) == P(("d0",), None)


@pytest.mark.parametrize("dims", [(0, 8), (3, 0)])
def test_empty_tensor_is_hashed_by_every_device(dims: tuple[int, int]):
    _, placement = placed(mesh(8), P(), *dims)
    assert placement.cut == ((), ())
    assert placement.note is None
