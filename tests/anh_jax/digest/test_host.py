import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anh_jax.digest import tiles
from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.errors import AnhError
from attest.digest_tree import ALGORITHMS, ELEMENT_BYTES, path_text
from attest.tensor_header import TensorHeader

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SlowDigest = Callable[..., bytes]


def root(tree: Any, *, step: int = 1) -> bytes:
    return tree_digest(tree, step=step).root


def float32(*bits: int) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def filled(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Fill an array with random bits of a dtype, each byte one the dtype can hold."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    size = int(np.prod(shape)) * kind.itemsize
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    if dtype == "bool":
        data &= 1
    elif dtype in ("int4", "uint4"):
        data &= 15
    return data.view(kind).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    extents = st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 13, 16, 31, 32, 64, 97, 128, 160, 256, 1024])
    shape: list[int] = []
    for extent in draw(st.lists(extents, max_size=5)):
        fits = int(np.prod(shape, dtype=int)) * extent <= 1 << 14
        shape.append(extent if fits else 1)
    dtype = draw(st.sampled_from(sorted(ELEMENT_BYTES)))
    array = filled(dtype, tuple(shape), draw(st.integers(0, 9)))
    return draw(st.sampled_from([array, np.asfortranarray(array)]))


@settings(max_examples=150, deadline=None)
@given(array=arrays(), step=st.integers(0, 2**53 - 1), alg=st.sampled_from(ALGORITHMS))
def test_digest_equals_the_slow_one(
    array: np.ndarray, step: int, alg: str, slow_digest: SlowDigest
):
    tree = {"parameters": {"w": array}, "step": np.uint32(5)}
    assert tree_digest(tree, step=step, alg=alg).root == slow_digest(tree, step=step, alg=alg)


names = st.text(max_size=6) | st.integers(0, 2**64 - 1)
trees = st.recursive(
    st.none() | st.builds(lambda n: np.full((), n, np.int16), st.integers(-9, 9)),
    lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(tree=trees)
def test_digest_of_any_tree_equals_the_slow_one(tree: Any, slow_digest: SlowDigest):
    held = {"tree": tree, "one": np.zeros(3, np.float32)}
    assert root(held) == slow_digest(held, step=1)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_golden_state_keeps_its_digest(alg: str, golden_state: Any, slow_digest: SlowDigest):
    golden = json.loads((GOLDEN / "state_digest.json").read_bytes())["digests"][alg]
    digest = tree_digest(golden_state, step=7, alg=alg)
    assert {
        "root": digest.root.hex(),
        "set": digest.set_root.hex(),
        "structure": digest.structure.hex(),
        "tensors": {path_text(tensor.path): tensor.root.hex() for tensor in digest.tensors},
    } == golden
    assert slow_digest(golden_state, step=7, alg=alg) == digest.root


def test_array_cut_into_many_slabs_keeps_its_digest(monkeypatch: pytest.MonkeyPatch):
    tree = {
        "rows": filled("float32", (64, 512), 1),
        "deep": filled("bfloat16", (4, 64, 512), 2),
        "flat": filled("uint8", (1 << 17,), 3),
    }
    whole = root(tree)
    monkeypatch.setattr(tiles, "SLAB_BYTES", 16384)
    assert root(tree) == whole


def test_jax_and_numpy_arrays_have_one_digest():
    bits = filled("float32", (64, 64), 4)
    assert root({"w": jnp.asarray(bits)}) == root({"w": bits})
    small = filled("int4", (5, 7), 4)
    assert root({"w": jnp.asarray(small)}) == root({"w": small})
    assert root({"w": np.float32(2)}) == root({"w": jnp.float32(2)})


def test_bits_count_and_not_values():
    quiet, payload, signalling = 0x7FC00000, 0x7FC00001, 0x7F800001
    patterns = (0, 0x80000000, quiet, payload, signalling, 0xFFC00000, 1)
    roots = {root({"w": float32(bits)}) for bits in patterns}
    assert len(roots) == len(patterns)
    for bits in patterns:
        assert root({"w": jnp.asarray(float32(bits))}) in roots


def test_every_bit_of_a_tensor_counts():
    data = np.zeros(40, np.uint8)
    roots = {root({"w": data})}
    for at in range(40):
        for bit in range(8):
            flipped = data.copy()
            flipped[at] ^= 1 << bit
            roots.add(root({"w": flipped}))
    assert len(roots) == 321


@pytest.mark.parametrize(
    ("dtype", "width"), [("bfloat16", 2), ("float16", 2), ("float8_e5m2", 1), ("bool", 1)]
)
def test_narrow_types_keep_their_own_width(dtype: str, width: int):
    array = filled(dtype, (32768,), 5)
    header = TensorHeader.from_bytes(tree_digest({"w": array}, step=0).tensors[0].header)
    assert (header.dtype, header.itemsize) == (dtype, width)
    assert header.grid == (2 * width,)  # tiles of 16 KiB


def test_bytes_that_stand_for_one_value_have_one_digest():
    one, two = np.array([1], np.uint8), np.array([2], np.uint8)
    assert root({"w": two.view(np.bool_)}) == root({"w": one.view(np.bool_)})
    high = np.array([0xF5], np.uint8).view(ml_dtypes.int4)
    low = np.array([0x05], np.uint8).view(ml_dtypes.int4)
    assert high == low
    assert root({"w": high}) == root({"w": low})
    minus = np.array([-1], ml_dtypes.int4)
    assert root({"w": minus}) == root({"w": np.array([15], np.uint8).view(ml_dtypes.int4)})


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8", "c8", "c16"])
def test_byte_order_and_memory_order_do_not_count(dtype: str):
    array = np.arange(2048).reshape(64, 32).astype(f"<{dtype}")
    assert root({"w": array.astype(f">{dtype}")}) == root({"w": array})
    assert root({"w": np.asfortranarray(array)}) == root({"w": array})
    assert root({"w": np.repeat(array, 2, axis=1)[:, ::2]}) == root({"w": array})


def test_shape_dtype_and_path_count():
    array = np.zeros((2, 4), np.float32)
    trees = (
        {"w": array},
        {"v": array},
        {"w": array.reshape(4, 2)},
        {"w": array.reshape(8)},
        {"w": array.view(np.int32)},
        {"w": {"w": array}},
        {"w": array, "v": array},
        {0: array},
        {"0": array},
        [array],
        array,
    )
    assert len({root(tree) for tree in trees}) == len(trees)


def test_empty_nodes_count_though_they_hold_no_tensor():
    w = np.zeros(2, np.float32)
    trees = ({"w": w}, {"w": w, "e": {}}, {"w": w, "e": None}, {"w": w, "e": []}, {"w": w, "f": {}})
    digests = [tree_digest(tree, step=1) for tree in trees]
    assert len({digest.root for digest in digests}) == len(trees)
    assert len({digest.structure for digest in digests}) == len(trees)
    assert len({digest.set_root for digest in digests}) == 1


def test_order_of_dict_keys_and_kind_of_sequence_do_not_count():
    a, b = np.zeros(2, np.float32), np.ones(3, np.float32)
    assert root({"a": a, "b": [a, b]}) == root({"b": (a, b), "a": a})


def test_step_changes_the_root_and_leaves_the_set():
    tree = {"w": np.zeros(2, np.float32)}
    first, second = tree_digest(tree, step=1), tree_digest(tree, step=2)
    assert first.root != second.root
    assert first.set_root == second.set_root == first.tensors[0].root


def test_algorithms_share_a_tree_and_no_digest():
    tree = {"w": np.zeros(2, np.float32)}
    first, second = tree_digest(tree, step=1), tree_digest(tree, step=1, alg="sha256")
    assert first.tensors[0].header == second.tensors[0].header
    assert first.root != second.root


def test_key_is_its_words_and_its_generator():
    key = jax.random.key(7)
    digest = tree_digest({"key": key}, step=0)
    header = TensorHeader.from_bytes(digest.tensors[0].header)
    assert (header.implementation, header.dtype, header.dims) == ("threefry2x32", "uint32", (2,))
    assert digest.root != root({"key": jax.random.key_data(key)}, step=0)
    assert digest.root != root({"key": jax.random.key(8)}, step=0)
    rbg, unsafe = (jax.random.key(7, impl=impl) for impl in ("rbg", "unsafe_rbg"))
    assert (jax.random.key_data(rbg) == jax.random.key_data(unsafe)).all()
    assert root({"key": rbg}) != root({"key": unsafe})


def test_keys_in_an_array_equal_the_slow_digest(slow_digest: SlowDigest):
    tree = {"keys": jax.random.split(jax.random.key(1), (600, 2))}
    assert root(tree) == slow_digest(tree, step=1)


def test_digest_leaves_the_buffer_free_to_be_donated():
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = add(jnp.zeros((256, 256), jnp.float32))
    buffer = array.unsafe_buffer_pointer()
    digest = tree_digest({"w": array}, step=1)
    result = add(array)
    assert array.is_deleted()
    assert result.unsafe_buffer_pointer() == buffer
    assert isinstance(digest, TreeDigest)


def test_failed_digest_leaves_the_buffer_free_to_be_donated():
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = add(jnp.zeros((256, 256), jnp.float32))
    with pytest.raises(AnhError):
        tree_digest({"w": array, "n": 1}, step=1)
    add(array)
    assert array.is_deleted()


def test_gradient_digest_covers_gradient_and_statistics_alone():
    outputs = {
        "gradient": {"w": np.ones((4, 4), np.float32)},
        "statistics": {"mean": np.zeros(4, np.float32)},
        "loss": np.float32(1),
        "weight": np.float32(8),
    }
    digest = gradient_digest(outputs, step=3)
    names = ("gradient", "statistics")
    assert digest == tree_digest({name: outputs[name] for name in names}, step=3)
    assert gradient_digest({**outputs, "loss": np.float32(2)}, step=3) == digest
    changed = {**outputs, "statistics": {"mean": np.ones(4, np.float32)}}
    assert gradient_digest(changed, step=3).root != digest.root
    assert gradient_digest({**outputs, "statistics": {}}, step=3).root != digest.root
