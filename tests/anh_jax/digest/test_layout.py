"""A tree that comes back is digested from what was remembered of it: by its values, and no less."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.digest.host import tree_digest
from anh_jax.errors import AnhError
from attest.digest_tree import merge_axes


def training_state(seed: int) -> dict[str, Any]:
    """Return a state with values of its own: one tile, grids of one, two and three axes, a key."""
    values = iter(np.random.default_rng(seed).standard_normal(1 << 19, dtype=np.float32))

    def array(*shape: int) -> jax.Array:
        count = int(np.prod(shape))
        taken = np.fromiter(values, np.float32, count)
        return jnp.array(taken).reshape(shape)

    return {
        "key": jax.random.key(seed),
        "step": jnp.uint32(seed),
        "parameters": {
            "bias": array(8),
            "long": array(16384),
            "matrix": array(64, 512),
            "stack": [array(4, 32, 256), array(16, 32, 32)],
            "half": array(128, 256).astype(jnp.bfloat16),
            "flag": jnp.array([seed % 2 == 0, True]),
            "nothing": jnp.zeros((0, 3), jnp.float32),
        },
        "empty": {},
    }


@pytest.mark.parametrize("alg", ["blake3", "sha256"])
def test_tree_that_comes_back_with_other_values_has_their_digest(alg: str, slow_digest: Any):
    for seed in (1, 2, 1):
        state = training_state(seed)
        assert tree_digest(state, step=seed, alg=alg).root == slow_digest(state, step=seed, alg=alg)


def test_key_that_changes_changes_the_digest():
    state = training_state(1)
    first = tree_digest(state, step=1).root
    assert tree_digest({**state, "key": jax.random.key(9)}, step=1).root != first
    assert tree_digest(state, step=1).root == first


def test_every_tensor_of_a_tree_that_came_back_counts():
    base = training_state(1)
    seen = {tree_digest(base, step=1).root}
    leaves, nodes = jax.tree.flatten(base)
    for place, leaf in enumerate(leaves):
        if leaf.size and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            last = tuple(size - 1 for size in leaf.shape)
            changed = leaf.at[last].set(~leaf[last] if leaf.dtype == bool else leaf[last] + 1)
            tree = jax.tree.unflatten(nodes, [*leaves[:place], changed, *leaves[place + 1 :]])
            seen.add(tree_digest(tree, step=1).root)
    assert len(seen) == len(leaves) - 1  # all but the key and the empty array, and the base


def test_dtype_shape_and_node_of_a_tree_that_came_back_count():
    zeros = jnp.zeros((4, 4), jnp.float32)
    trees: list[Any] = [
        {"a": zeros},
        {"a": zeros.view(jnp.uint32)},
        {"a": zeros.reshape(2, 8)},
        {"a": [zeros]},
        {"b": zeros},
        {"a": zeros, "b": {}},
        {"a": zeros, "b": None},
    ]
    for _ in range(2):
        assert len({tree_digest(tree, step=0).root for tree in trees}) == len(trees)


def test_deleted_array_of_a_tree_that_came_back_is_refused():
    state = {"weights": jnp.ones(64, jnp.float32)}
    tree_digest(state, step=0)
    state["weights"].delete()
    with pytest.raises(AnhError, match="donated or deleted"):
        tree_digest(state, step=1)


def test_weakly_typed_array_like_one_that_came_back_is_refused():
    tree_digest({"x": jnp.zeros((), jnp.float32)}, step=0)
    with pytest.raises(AnhError, match="weakly typed"):
        tree_digest({"x": jnp.asarray(0.0)}, step=0)


def test_keys_that_are_equal_to_jax_but_no_index_are_refused():
    x = jnp.zeros(3, jnp.float32)
    tree_digest({1: x}, step=0)
    for key in (True, 1.0):
        with pytest.raises(AnhError, match="neither text nor an index"):
            tree_digest({key: x}, step=0)


def test_remembered_tree_leaves_its_buffers_free_to_be_donated():
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.arange(4096, dtype=jnp.float32)
    for step in range(3):
        tree_digest({"x": x}, step=step)
        place = x.unsafe_buffer_pointer()
        x = add(x)
        assert x.unsafe_buffer_pointer() == place


@pytest.mark.parametrize("grid", [(1,), (8,), (2, 4), (4, 2, 2), (1, 16)])
def test_order_of_tiles_is_the_order_of_merges(grid: tuple[int, ...]):
    from anh_jax.digest.merge import merge_order

    tiles = np.arange(np.prod(grid)).reshape(grid)
    listed = np.array(merge_order(grid))
    for axis in merge_axes(grid):
        even, odd = (np.take(tiles, range(i, tiles.shape[axis], 2), axis) for i in (0, 1))
        pairs = {
            frozenset(pair)
            for pair in zip(even.ravel().tolist(), odd.ravel().tolist(), strict=True)
        }
        assert {frozenset(pair) for pair in listed.reshape(-1, 2).tolist()} == pairs
        tiles, listed = even, listed[::2]


@pytest.mark.parametrize("key", [True, 1.0])
@pytest.mark.parametrize("nothing", [None, {}, []])
def test_key_that_is_no_key_is_refused_though_an_equal_index_was_there(key: Any, nothing: Any):
    array = jnp.arange(3, dtype=jnp.float32)
    tree_digest({"a": array, "b": {1: nothing}}, step=1)
    with pytest.raises(AnhError, match="neither text nor an index"):
        tree_digest({"a": array, "b": {key: nothing}}, step=1)


def test_containers_that_are_leaves_to_jax_have_the_digest_of_what_they_hold():
    class Rows(list[Any]):
        pass

    class Named(dict[str, Any]):
        pass

    array = jnp.arange(3, dtype=jnp.float32)
    plain = tree_digest({"a": [array], "b": {"c": array}}, step=1)
    assert tree_digest({"a": Rows([array]), "b": Named(c=array)}, step=1) == plain


@pytest.mark.parametrize("shape", [(1,) * 64, (1,) * 40 + (3, 5), (1,) * 40 + (256, 1024)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_axes_of_one_element_are_no_axes_to_numpy(
    shape: tuple[int, ...], dtype: str, slow_digest: Any
):
    array = np.ones(shape, jnp.dtype(dtype))
    assert tree_digest({"a": array}, step=1).root == slow_digest({"a": array}, step=1)
