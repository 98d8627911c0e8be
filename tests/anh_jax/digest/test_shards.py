from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.digest import shards
from anh_jax.digest.exchange import ReplicaError, Subtrees, completed
from anh_jax.digest.host import tree_digest
from anh_jax.digest.shards import hold
from anh_jax.digest.tree import Leaf, read_tree
from anh_jax.errors import AnhError
from attest.digest_tree import LARGEST_BYTE

P = PartitionSpec
SHAPES = {
    "kernel": (256, 1024),  # grid (8, 8)
    "stacked": (8, 64, 256),  # grid (4, 4, 2)
    "vector": (1 << 15,),  # grid (8,)
    "tall": (4096, 32),  # grid (32, 1)
}


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    random = np.random.default_rng(3)
    bits = {
        name: random.integers(0, 2**32, shape, np.uint32).view(np.float32)
        for name, shape in SHAPES.items()
    }
    return {"parameters": bits, "step": np.uint32(4)}


def mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    devices = np.array(jax.devices()[: data * fsdp * tensor])
    return Mesh(devices.reshape(data, fsdp, tensor), ("data", "fsdp", "tensor"))


def placed(tree: dict[str, Any], sharding: Callable[[str], NamedSharding]) -> dict[str, Any]:
    parameters = {
        name: jax.device_put(array, sharding(name)) for name, array in tree["parameters"].items()
    }
    return {**tree, "parameters": parameters}


SPECS = {
    "replicated": {},
    "fsdp": {
        "kernel": P("fsdp"),
        "stacked": P("fsdp"),
        "vector": P("fsdp"),
        "tall": P(("data", "fsdp")),
    },
    "tensor": {
        "kernel": P(None, "tensor"),
        "stacked": P(None, "tensor"),
        "vector": P("tensor"),
        "tall": P("tensor"),
    },
    "both": {
        "kernel": P("fsdp", "tensor"),
        "stacked": P("tensor", "fsdp"),
        "vector": P(("fsdp", "tensor")),
        "tall": P(("tensor", "data", "fsdp")),
    },
}
MESHES = [
    (1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 4, 1), (1, 2, 2), (2, 1, 2), (8, 1, 1),
    (1, 8, 1), (1, 1, 8), (2, 2, 2), (1, 4, 2), (1, 2, 4),
]  # fmt: skip


@pytest.mark.parametrize("specs", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("sizes", MESHES, ids=lambda sizes: "x".join(map(str, sizes)))
def test_digest_is_one_under_every_sharding(
    tree: dict[str, Any],
    sizes: tuple[int, int, int],
    specs: dict[str, PartitionSpec],
):
    on = mesh(*sizes)
    held = placed(tree, lambda name: NamedSharding(on, specs.get(name, P())))
    digest = tree_digest(held, step=4)
    assert digest == tree_digest(tree, step=4)
    assert all("assembled" in note for note in digest.notes)


def test_aligned_shards_are_hashed_where_they_lie(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    on = mesh(1, 4, 2)
    held = placed(tree, lambda name: NamedSharding(on, SPECS["fsdp"][name]))
    expected = tree_digest(tree, step=4)

    def refuse(value: Any) -> np.ndarray:
        if isinstance(value, jax.Array):
            raise AssertionError("an aligned array was assembled")
        return value

    monkeypatch.setattr(shards, "whole", refuse)
    digest = tree_digest(held, step=4)
    assert digest == expected
    assert digest.notes == ()


def test_sharding_that_splits_tiles_is_assembled_with_a_note():
    array = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)
    held = jax.device_put(array, NamedSharding(mesh(1, 8, 1), P("fsdp")))
    digest = tree_digest({"e": held}, step=0)
    assert digest == tree_digest({"e": array}, step=0)
    assert digest.notes == ("e: its sharding splits tiles; assembled on the host",)


def test_sharding_in_three_parts_is_assembled():
    array = np.arange(96 * 96, dtype=np.float32).reshape(96, 96)
    on = Mesh(np.array(jax.devices()[:6]).reshape(3, 2), ("a", "b"))
    held = jax.device_put(array, NamedSharding(on, P("b", "a")))
    digest = tree_digest({"w": held}, step=0)
    assert digest == tree_digest({"w": array}, step=0)
    assert len(digest.notes) == 1


def test_sharded_keys_and_empty_arrays_have_the_digest_of_whole_ones():
    keys = jax.random.split(jax.random.key(5), 2048)
    empty = np.zeros((0, 8), np.float32)
    on = NamedSharding(mesh(1, 4, 1), P("fsdp"))
    held = {"keys": jax.device_put(keys, on), "empty": jax.device_put(empty, on)}
    assert tree_digest(held, step=0) == tree_digest({"keys": keys, "empty": empty}, step=0)


def test_digest_leaves_sharded_buffers_free_to_be_donated():
    on = NamedSharding(mesh(1, 8, 1), P("fsdp"))
    add = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=on)
    array = add(jax.device_put(np.zeros((256, 512), np.float32), on))
    before = {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}
    tree_digest({"w": array}, step=1)
    result = add(array)
    assert array.is_deleted()
    after = {shard.data.unsafe_buffer_pointer() for shard in result.addressable_shards}
    assert after == before


def leaf() -> Leaf:
    return read_tree({"w": np.zeros((64, 512), np.float32)}).leaves[0]


def halves(digests: np.ndarray) -> list[Subtrees]:
    """Let two processes own the upper and the lower three quarters of the subtrees."""
    held = []
    for part in (slice(0, 3), slice(1, 4)):
        owned = np.zeros(digests.shape[:-1], np.bool_)
        owned[part] = True
        mine = np.where(owned[..., None], digests, 0).astype(np.uint8)
        held.append(Subtrees(leaf(), mine, owned, (0, 1, 0), complete=False))
    return held


def test_exchange_fills_in_what_other_processes_own():
    digests = np.random.default_rng(1).integers(0, 256, (4, 2, 32), np.uint8)
    first, second = halves(digests)
    seen: list[Any] = []

    def exchange(local: np.ndarray, owned: np.ndarray) -> np.ndarray:
        seen.append((local.dtype, local.shape, owned.dtype, owned.tolist()))
        other = second.digests.view("<u4").astype(np.uint32).reshape(-1, 8)
        return np.where(owned[:, None], local, other)

    (filled,) = completed([first], exchange)
    assert (filled.digests == digests).all()
    assert filled.axes == first.axes
    assert seen == [(np.uint32, (8, 8), np.bool_, [True] * 6 + [False] * 2)]


def test_replicas_that_differ_are_named():
    digests = np.random.default_rng(1).integers(0, 256, (4, 2, 32), np.uint8)
    first, _ = halves(digests)

    def exchange(local: np.ndarray, owned: np.ndarray) -> np.ndarray:
        changed = local.copy()
        changed[3, 7] ^= 1
        return changed

    with pytest.raises(ReplicaError, match="w: this process and another") as caught:
        completed([first], exchange)
    assert caught.value.exit_code == 1


def test_missing_or_misshapen_exchange_is_refused():
    first, _ = halves(np.zeros((4, 2, 32), np.uint8))
    with pytest.raises(AnhError, match="pass an exchange"):
        completed([first], None)
    for answer in (np.zeros((7, 8), np.uint32), np.zeros((8, 8), np.int64)):
        with pytest.raises(AnhError, match="not uint32"):
            completed([first], lambda local, owned, answer=answer: answer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e5m2", "bool", "int4", "complex64"])
def test_what_is_replicated_to_be_hashed_keeps_its_bits(
    dtype: str, monkeypatch: pytest.MonkeyPatch
):
    kind = jax.numpy.dtype(dtype)
    raw = np.random.default_rng(2).integers(0, 256, 24 * 5 * kind.itemsize, np.uint8)
    array = (raw & LARGEST_BYTE.get(dtype, 255)).view(kind).reshape(24, 5)
    held = jax.device_put(array, NamedSharding(mesh(1, 8, 1), P("fsdp")))
    # As it is where the shards lie on several processes.
    spread = shards.Spread((8, 1), aligned=False, complete=False)
    monkeypatch.setattr(shards, "_spread", lambda *unused: spread)
    (block,) = hold(read_tree({"w": held}).leaves[0]).blocks()
    assert block.values.dtype == kind and block.values.tobytes() == array.tobytes()
