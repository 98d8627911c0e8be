"""A tensor that comes back unchanged costs one look-up, and nothing else is ever taken for it."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.digest import large
from anh_jax.digest.digester import HostDigest
from anh_jax.digest.frozen import FrozenTops
from anh_jax.digest.hashes import BulkHashes
from anh_jax.digest.host import tree_digest
from anh_jax.digest.tiles import Tiled
from anh_jax.errors import AnhError


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the large tensors that are hashed, as they are."""
    sizes: list[int] = []
    hash_all = large.hash_all

    def counted(hashes: BulkHashes, cuts: Sequence[Tiled], threads: int) -> list[list[bytes]]:
        sizes.extend(cut.nbytes for cut in cuts)
        return hash_all(hashes, cuts, threads)

    monkeypatch.setattr(large, "hash_all", counted)
    return sizes


def adapted(seed: int = 0) -> dict[str, Any]:
    """Return a state as low-rank adaptation has it: large frozen weights, small ones that train."""
    values = np.random.default_rng(seed).standard_normal((256, 1024), dtype=np.float32)
    return {
        "frozen": {"w": jnp.asarray(values), "half": jnp.asarray(values).astype(jnp.bfloat16)},
        "adapters": {"a": jnp.zeros((256, 8), jnp.float32), "b": jnp.ones((8, 1024), jnp.float32)},
    }


train = jax.jit(lambda adapters: jax.tree.map(lambda x: x * 0.5 + 1, adapters), donate_argnums=0)


def test_frozen_weights_are_hashed_once_and_the_digest_is_that_of_all(hashed: list[int]):
    state, frozen = adapted(), FrozenTops()
    for step in range(3):
        kept = tree_digest(state, step=step, frozen=frozen)
        first = list(hashed)
        hashed.clear()
        assert kept == tree_digest(state, step=step)
        assert first == ([1 << 20, 1 << 19] if step == 0 else [])
        assert hashed == [1 << 20, 1 << 19]
        hashed.clear()
        state["adapters"] = train(state["adapters"])


def test_equal_array_that_is_another_object_is_hashed(hashed: list[int]):
    state, frozen = adapted(), FrozenTops()
    tree_digest(state, step=0, frozen=frozen)
    hashed.clear()
    state["frozen"]["w"] = state["frozen"]["w"] + 0
    tree_digest(state, step=0, frozen=frozen)
    assert hashed == [1 << 20]


def test_changed_weights_change_the_digest():
    state, frozen = adapted(), FrozenTops()
    first = tree_digest(state, step=0, frozen=frozen).root
    state["frozen"]["w"] = state["frozen"]["w"].at[3, 5].add(1)
    second = tree_digest(state, step=0, frozen=frozen)
    assert second.root != first
    assert second == tree_digest(state, step=0)


def test_one_object_at_two_paths_has_each_paths_digest(hashed: list[int]):
    w, frozen = adapted()["frozen"]["w"], FrozenTops()
    tree_digest({"a": w}, step=0, frozen=frozen)
    tied = {"b": w, "c": [w]}
    assert tree_digest(tied, step=0, frozen=frozen) == tree_digest(tied, step=0)


def test_memory_keeps_no_array_alive():
    state, frozen = adapted(), FrozenTops()
    tree_digest(state, step=0, frozen=frozen)
    assert len(frozen) == 2
    del state["frozen"]["w"]
    for _ in range(100):  # a computation under way may still hold what it was given
        gc.collect()
        if len(frozen) == 1:
            break
        time.sleep(0.05)
    assert len(frozen) == 1


def test_array_at_the_place_of_a_dead_one_is_not_taken_for_it():
    first, frozen = jnp.zeros((8, 8), jnp.float32), FrozenTops()
    frozen.keep(first, b"1" * 32)
    second = jnp.ones((8, 8), jnp.float32)
    known = frozen._known
    known[id(second)] = known[id(first)]  # what a place used again looks like
    assert frozen.find(second) is None
    assert frozen.find(first) == b"1" * 32


def test_death_of_an_array_does_not_forget_the_one_now_at_its_place():
    first, second, frozen = jnp.zeros(8, jnp.float32), jnp.ones(8, jnp.float32), FrozenTops()
    frozen.keep(first, b"1" * 32)
    frozen.keep(second, b"2" * 32)
    known, place = frozen._known, id(first)
    dying = known[place]
    known[place] = known[id(second)]
    del first
    gc.collect()
    assert dying() is None
    assert len(frozen) == 2


@pytest.mark.parametrize("ending", ["donated", "deleted"])
def test_array_that_was_given_away_does_not_hit(ending: str):
    array, frozen = jnp.zeros((256, 1024), jnp.float32), FrozenTops()
    tree_digest({"w": array}, step=0, frozen=frozen)
    assert frozen.find(array) is not None
    if ending == "donated":
        train({"w": array})
    else:
        array.delete()
    assert array.is_deleted()
    assert frozen.find(array) is None
    with pytest.raises(AnhError, match="donated or deleted"):
        tree_digest({"w": array}, step=0, frozen=frozen)


def test_remembered_array_can_still_be_donated_in_place():
    array, frozen = train({"w": jnp.zeros((256, 1024), jnp.float32)})["w"], FrozenTops()
    tree_digest({"w": array}, step=0, frozen=frozen)
    buffer = array.unsafe_buffer_pointer()
    assert train({"w": array})["w"].unsafe_buffer_pointer() == buffer


def test_numpy_arrays_are_read_every_time():
    array, frozen = np.zeros((256, 1024), np.float32), FrozenTops()
    first = tree_digest({"w": array}, step=0, frozen=frozen).root
    array[0, 0] = 1
    assert tree_digest({"w": array}, step=0, frozen=frozen).root != first
    assert len(frozen) == 0


def test_sharded_weights_are_remembered_whole(hashed: list[int]):
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    state, frozen = adapted(), FrozenTops()
    w = jax.device_put(state["frozen"]["w"], NamedSharding(mesh, PartitionSpec("x")))
    first = tree_digest({"w": w}, step=0, frozen=frozen)
    hashed.clear()
    assert tree_digest({"w": w}, step=0, frozen=frozen) == first
    assert hashed == []
    assert first == tree_digest({"w": state["frozen"]["w"]}, step=0)


def test_memory_of_another_algorithm_is_refused():
    state, frozen = adapted(), FrozenTops()
    with pytest.raises(AnhError, match="remembered in blake3; use it, not sha256"):
        tree_digest(state, step=0, alg="sha256", frozen=frozen)
    kept = tree_digest(state, step=0, alg="sha256", frozen=FrozenTops("sha256"))
    assert kept == tree_digest(state, step=0, alg="sha256")


def test_digester_of_a_loop_hashes_frozen_weights_once_and_again_where_replicas_are_compared(
    hashed: list[int],
):
    state, digester = adapted(), HostDigest()
    roots = [digester.start(state, step=1).result() for _ in range(2)]
    assert len(hashed) == 2
    roots.append(digester.start(state, step=1, every_replica=True).result())
    assert len(hashed) == 4
    assert roots == [tree_digest(state, step=1)] * 3
