"""Whatever way the bytes of a tile take to the hash, its digest is that of the bytes."""

import itertools
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.digest import tiles, workers
from anh_jax.digest.hashes import bulk_hashes
from anh_jax.digest.host import tree_digest
from anh_jax.digest.merge import pair_order
from anh_jax.digest.tiles import hash_tiles, tiled
from attest.blake3_pure import blake3_derive_key
from attest.digest_tree import ALGORITHMS, tile_dims, tile_grid

WIDTHS = {"bool": 1, "int4": 1, "float8_e5m2": 1, "bfloat16": 2, "float32": 4, "complex64": 8}


def bits(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return random bits of a dtype, each byte one the dtype can hold."""
    data = np.random.default_rng(seed).integers(0, 256, math.prod(shape) * WIDTHS[dtype], np.uint8)
    data &= {"bool": 1, "int4": 15}.get(dtype, 255)
    return data.view(getattr(ml_dtypes, dtype, dtype)).reshape(shape)


def plain_digest(array: np.ndarray) -> bytes:
    """Digest {"w": array} at step 3 with nothing but the standard library and plain loops."""
    width, data, dims = array.dtype.itemsize, array.tobytes(), array.shape
    grid = tile_grid(dims, width)
    extents = [dim // count for dim, count in zip(dims, grid, strict=True)]

    def element(place: tuple[int, ...]) -> bytes:
        flat = 0
        for at, dim in zip(place, dims, strict=True):
            flat = flat * dim + at
        return data[flat * width : (flat + 1) * width]

    def hashed(level: str, *material: bytes) -> bytes:
        return blake3_derive_key(f"anh v1 {level}", b"".join(material))

    level: dict[tuple[int, ...], bytes] = {}
    for index in itertools.product(*map(range, grid)):
        within = itertools.product(*map(range, extents))
        offsets = [at * size for at, size in zip(index, extents, strict=True)]
        places = (tuple(o + i for o, i in zip(offsets, inner, strict=True)) for inner in within)
        level[index] = hashed("tile", *map(element, places))
    counts = list(grid)
    while any(count > 1 for count in counts):
        axis = max(range(len(counts)), key=lambda a: (counts[a], a))
        counts[axis] //= 2
        left = {
            i[:axis] + (i[axis] // 2,) + i[axis + 1 :]: d
            for i, d in level.items()
            if not i[axis] % 2
        }
        right = {
            i[:axis] + (i[axis] // 2,) + i[axis + 1 :]: d for i, d in level.items() if i[axis] % 2
        }
        level = {index: hashed("node", left[index], right[index]) for index in left}
    (top,) = level.values()

    def u(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    path, name = u(1, 2) + b"\x00" + u(1, 4) + b"w", array.dtype.name.encode()
    header = b"\x01\x00" + path + u(len(name), 1) + name + u(len(dims), 1)
    header += b"".join(u(n, 8) for n in (*dims, *grid))
    tensor = hashed("tensor", u(len(header), 4), header, top)
    structure = hashed("structure", u(2, 4), u(0, 2) + b"\x00", path + b"\x03")
    return hashed("state", u(3, 8), u(1, 4), structure, tensor)


@st.composite
def shapes(draw: st.DrawFn, width: int, limit: int) -> tuple[int, ...]:
    """Draw shapes of up to `limit` bytes: ranks 0 to 5; odd, prime and zero extents."""
    extents = st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 12, 17, 32, 61, 96, 128, 257, 384, 1024])
    shape: list[int] = []
    for extent in draw(st.lists(extents, max_size=5)):
        shape.append(extent if math.prod(shape) * extent * width <= limit else 1)
    return tuple(shape)


@st.composite
def arrays(draw: st.DrawFn, limit: int) -> np.ndarray:
    dtype = draw(st.sampled_from(sorted(WIDTHS)))
    return bits(dtype, draw(shapes(WIDTHS[dtype], limit)), draw(st.integers(0, 9)))


@settings(max_examples=25, deadline=None)
@given(array=arrays(1 << 15))
def test_digest_equals_that_of_plain_loops(array: np.ndarray):
    assert tree_digest({"w": array}, step=3).root == plain_digest(array)


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (96, 192)), ("bfloat16", (2, 3, 64, 96))])
def test_digest_of_a_grid_equals_that_of_plain_loops(dtype: str, shape: tuple[int, ...]):
    array = bits(dtype, shape, 1)
    assert math.prod(tile_grid(shape, array.dtype.itemsize)) > 1
    assert tree_digest({"w": array}, step=3).root == plain_digest(array)


@pytest.mark.full
@settings(max_examples=400, deadline=None)
@given(array=arrays(1 << 17))
def test_digest_of_larger_arrays_equals_that_of_plain_loops(array: np.ndarray):
    assert tree_digest({"w": array}, step=3).root == plain_digest(array)


@settings(max_examples=100, deadline=None)
@given(
    array=arrays(1 << 18),
    slab=st.sampled_from([1 << 15, 1 << 16, 1 << 19]),
    part=st.sampled_from([64, 1024, 1 << 17]),
    columns=st.sampled_from([1, 3, 16]),
    run=st.sampled_from([1, 1 << 30]),
    job=st.sampled_from([1, 1 << 16]),
    threads=st.sampled_from([1, 3]),
    alg=st.sampled_from(ALGORITHMS),
)
def test_sizes_of_slabs_parts_and_jobs_and_threads_do_not_count(
    array: np.ndarray,
    slab: int,
    part: int,
    columns: int,
    run: int,
    job: int,
    threads: int,
    alg: str,
    slow_digest: Callable[..., bytes],
):
    with (
        patch.object(tiles, "SLAB_BYTES", slab),
        patch.object(tiles, "PART_BYTES", part),
        patch.object(tiles, "SIDE_BY_SIDE", columns),
        patch.object(tiles, "LONGEST_RUN", run),
        patch.object(workers, "JOB_BYTES", job),
    ):
        digest = tree_digest({"w": array}, step=2, alg=alg, threads=threads)
    assert digest.root == slow_digest({"w": array}, step=2, alg=alg)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", (1 << 18,)),  # one piece of memory
        ("float32", (512, 768)),  # rows, gathered by the slab
        ("float32", (5, 1001, 96)),  # more than a slab: by parts
        ("bool", (1 << 17,)),
        ("bool", (128, 2048)),
        ("int4", (701, 1536)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F", ">"])
def test_every_way_through_memory_gives_the_slow_digest(
    dtype: str, shape: tuple[int, ...], order: str, slow_digest: Callable[..., bytes]
):
    array = bits(dtype, shape, 5)
    expected = slow_digest({"w": array}, step=0)
    if order == "F":
        array = np.asfortranarray(array)
    elif order == ">":
        array = array.astype(array.dtype.newbyteorder(">"))
    before = array.tobytes()
    assert tree_digest({"w": array}, step=0).root == expected
    assert array.tobytes() == before


def test_high_bits_of_narrow_types_are_left_out_however_tiles_lie():
    for shape in ((1 << 17,), (128, 2048), (1201, 1536)):
        clean = bits("int4", shape, 2)
        dirty = (clean.view(np.uint8) | 0xA0).view(ml_dtypes.int4)
        assert tree_digest({"w": dirty}, step=0) == tree_digest({"w": clean}, step=0)
        true = np.full(shape, 2, np.uint8).view(np.bool_)
        assert tree_digest({"w": true}, step=0) == tree_digest({"w": true & True}, step=0)


def test_tiles_that_lie_together_are_hashed_where_they_lie(monkeypatch: pytest.MonkeyPatch):
    array = np.asarray(jnp.zeros((1 << 18,), jnp.float32))
    seen: list[bool] = []
    hashes = bulk_hashes("blake3")

    def tiles_of(views: Any) -> list[bytes]:
        listed = list(views)
        seen.extend(np.shares_memory(np.frombuffer(view, np.uint8), array) for view in listed)
        return hashes.tiles(listed)

    cut = tiled(array, tile_dims(array.shape, tile_grid(array.shape, 4)))
    hash_tiles(type(hashes)(tiles_of, hashes.pairs, hashes.stream), cut)
    assert seen == [True] * 64


def test_failed_thread_leaves_none_running(monkeypatch: pytest.MonkeyPatch):
    running: list[int] = []
    real = workers.hash_tiles

    def failing(hashes: Any, cut: Any) -> list[bytes]:
        running.append(1)
        try:
            if cut.nbytes < 1 << 20:
                raise MemoryError
            return real(hashes, cut)
        finally:
            running.pop()

    monkeypatch.setattr(workers, "hash_tiles", failing)
    tree = {"a": np.zeros((1, 1 << 16)), "b": np.zeros(1 << 22), "c": np.zeros(1 << 22)}
    with pytest.raises(MemoryError):
        tree_digest(tree, step=0, threads=2)
    assert running == []


@given(bits=st.lists(st.integers(0, 3), min_size=1, max_size=4), data=st.data())
def test_pairs_of_a_list_are_neighbours_of_the_grid(bits: list[int], data: st.DataObject):
    grid = [1 << n for n in bits]
    axes = data.draw(st.permutations([a for a, n in enumerate(bits) for _ in range(n)]))
    axes = axes[: data.draw(st.integers(0, len(axes)))]
    level = [frozenset([place]) for place in pair_order(tuple(grid), tuple(axes))]
    for _ in axes:
        level = [a | b for a, b in zip(level[::2], level[1::2], strict=True)]
    extents = [1] * len(grid)
    for axis in axes:
        extents[axis] *= 2
    numbers = np.arange(math.prod(grid)).reshape(grid)
    places = itertools.product(*(range(0, n, e) for n, e in zip(grid, extents, strict=True)))
    blocks = [
        numbers[tuple(slice(p, p + e) for p, e in zip(place, extents, strict=True))]
        for place in places
    ]
    assert level == [frozenset(block.reshape(-1).tolist()) for block in blocks]
