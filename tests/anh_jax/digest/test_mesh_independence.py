"""A device digest is that of the host under every sharding, and only digests cross devices."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from anh_jax.digest import gathering
from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.exchange import ReplicaError
from anh_jax.digest.host import tree_digest

P = PartitionSpec
SHAPES = {"kernel": (512, 1024), "stacked": (8, 256, 256), "vector": (1 << 15,), "scale": (96,)}
SPECS: dict[str, dict[str, PartitionSpec]] = {
    "replicated": {},
    "fsdp": {"kernel": P("fsdp"), "stacked": P(None, "fsdp"), "vector": P("fsdp")},
    "tensor": {"kernel": P(None, "tensor"), "stacked": P(None, None, "tensor")},
    "both": {
        "kernel": P("fsdp", "tensor"),
        "stacked": P("tensor", "fsdp"),
        "vector": P(("tensor", "fsdp")),
    },
}


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    random = np.random.default_rng(3)
    bits = {
        name: random.integers(0, 2**32, shape, np.uint32).view(np.float32)
        for name, shape in SHAPES.items()
    }
    return {"parameters": bits, "step": np.uint32(4)}


@pytest.fixture(scope="module")
def digester() -> DeviceDigest:
    return DeviceDigest()


def mesh(data: int, fsdp: int, tensor: int, **options: Any) -> Mesh:
    devices = np.array(jax.devices()[: data * fsdp * tensor])
    return Mesh(devices.reshape(data, fsdp, tensor), ("data", "fsdp", "tensor"), **options)


def placed(tree: dict[str, Any], on: Mesh, specs: dict[str, PartitionSpec]) -> dict[str, Any]:
    def put(name: str, array: Any) -> jax.Array:
        return jax.device_put(array, NamedSharding(on, specs.get(name, P())))

    parameters = {name: put(name, array) for name, array in tree["parameters"].items()}
    return {"parameters": parameters, "step": put("step", tree["step"])}


# One of each kind of sharding, on 1, 2, 4 and 8 devices; .ci/full takes all of them.
DAILY = {
    ((1, 1, 1), "both"),
    ((2, 1, 1), "replicated"),
    ((1, 4, 1), "fsdp"),
    ((1, 1, 8), "tensor"),
    ((2, 2, 2), "both"),
}
ALL = [
    (sizes, specs)
    for sizes in [(1, 1, 1), (2, 1, 1), (1, 4, 1), (2, 1, 4), (1, 1, 8), (2, 2, 2), (1, 3, 2)]
    for specs in SPECS
    if sizes != (1, 3, 2) or specs not in ("fsdp", "both")  # JAX takes no uneven shards
]


@pytest.mark.parametrize(
    ("sizes", "specs"),
    [pytest.param(*case, marks=() if case in DAILY else pytest.mark.full) for case in ALL],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_digest_is_one_under_every_sharding(
    tree: dict[str, Any], digester: DeviceDigest, sizes: tuple[int, int, int], specs: str
):
    held = placed(tree, mesh(*sizes), SPECS[specs])
    assert digester.start(held, step=4).result() == tree_digest(tree, step=4)


COLLECTIVE = re.compile(
    r"= (\S.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter)(?:-start)?\("
)


def collectives(digester: DeviceDigest, tree: Any, **options: Any) -> list[str]:
    """Return the result types of all collectives in the compiled program."""
    text = digester.lower(tree, **options).compile().as_text()
    assert text is not None
    return COLLECTIVE.findall(text)


@pytest.mark.parametrize("every_replica", [False, True], ids=["shared", "every replica"])
def test_one_gather_of_digests_is_all_that_crosses_devices(
    tree: dict[str, Any], digester: DeviceDigest, every_replica: bool
):
    held = placed(tree, mesh(2, 2, 2), SPECS["both"])
    (gather,) = collectives(digester, held, every_replica=every_replica)
    assert re.match(r"u32\[\d+,8\]", gather)
    assert digester.start(held, step=4, every_replica=every_replica).result() == tree_digest(
        tree, step=4
    )


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> DeviceDigest:
    """Return a digester that gathers twice, as it does where there would be many rows."""
    monkeypatch.setattr(gathering, "_ONE_GATHER_ROWS", 0)
    return DeviceDigest()


@pytest.mark.parametrize(
    ("sizes", "specs"),
    [((1, 8, 1), "fsdp"), pytest.param((2, 2, 2), "both", marks=pytest.mark.full)],
)
def test_where_digests_are_many_neighbours_merge_theirs_before_all_gather(
    tree: dict[str, Any], twice: DeviceDigest, sizes: tuple[int, int, int], specs: str
):
    held = placed(tree, mesh(*sizes), SPECS[specs])
    gathers = collectives(twice, held)
    assert len(gathers) == 2
    assert all(re.match(r"u32\[\d+,8\]", gather) for gather in gathers)
    assert twice.start(held, step=4).result() == tree_digest(tree, step=4)


@pytest.mark.parametrize(
    ("sizes", "flipped", "named"),
    [
        # All replicas of a block lie in different groups: a group is named.
        ((2, 4, 1), 5, "some of cpu:4, cpu:5, cpu:6, cpu:7 and cpu:0"),
        ((2, 4, 1), 0, "some of cpu:4, cpu:5, cpu:6, cpu:7 and cpu:0"),
        # Two of four replicas lie in one group: the other one is named.
        ((4, 2, 1), 6, "some of cpu:6 and cpu:0"),
    ],
)
def test_difference_between_groups_and_within_one_is_found(
    twice: DeviceDigest, sizes: tuple[int, int, int], flipped: int, named: str
):
    array = np.arange(1 << 16, dtype=np.float32).reshape(256, 256)
    sharding = NamedSharding(mesh(*sizes), P("fsdp"))
    scale = jax.device_put(array[0], NamedSharding(mesh(*sizes), P()))

    def held(flipped: int) -> dict[str, Any]:
        shards = []
        for device, index in sharding.addressable_devices_indices_map(array.shape).items():
            shard = array[index].copy()
            shard[3, 5] += device.id == flipped
            shards.append(jax.device_put(shard, device))
        whole = jax.make_array_from_single_device_arrays(array.shape, sharding, shards)
        return {"s": scale, "w": whole}

    expected = tree_digest({"s": array[0], "w": array}, step=0)
    assert twice.start(held(99), step=0, every_replica=True).result() == expected
    with pytest.raises(ReplicaError, match=f"w: {named} hold different bits"):
        twice.start(held(flipped), step=0, every_replica=True).result()


def test_sharding_that_splits_tiles_is_cut_anew_on_the_devices(digester: DeviceDigest):
    # A row of 1 KiB is cut into few tiles: most of an eightfold cut moves to the other axis.
    array = np.arange(1 << 20, dtype=np.float32).reshape(4096, 256)
    small = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)
    on = mesh(1, 1, 8)
    held = {
        "large": jax.device_put(array, NamedSharding(on, P(None, "tensor"))),
        "small": jax.device_put(small, NamedSharding(on, P("tensor"))),
    }
    digest = digester.start(held, step=0).result()
    assert digest == tree_digest({"large": array, "small": small}, step=0)
    assert digest.notes == (
        "large: its sharding splits tiles; cut anew on the devices to be hashed",
        "small: its sharding splits tiles; copied to every device to be hashed",
    )
    for moved in collectives(digester, held):
        extents = [math.prod(map(int, dims.split(","))) for dims in re.findall(r"\[(.*?)\]", moved)]
        assert max(extents) <= array.size // 8 or moved.startswith("u32"), moved


def test_elements_that_cross_between_devices_keep_their_bits(digester: DeviceDigest):
    # Collectives of XLA may carry these types as wider floats, which quiets a signalling NaN.
    devices = np.array(jax.devices())
    row, back = Mesh(devices, ("x",)), Mesh(devices[::-1], ("x",))
    state, held = {}, {}
    for name in ("bfloat16", "float16", "float8_e5m2", "float8_e4m3", "complex64"):
        dtype = jnp.dtype(name)
        count = 24 * 24 * dtype.itemsize
        bits = np.random.default_rng(len(state)).integers(0, 256, count, np.uint8)
        array = state[name] = state[f"{name} back"] = bits.view(dtype).reshape(24, 24)
        held[name] = jax.device_put(array, NamedSharding(row, P("x")))
        held[f"{name} back"] = jax.device_put(array, NamedSharding(back, P("x")))
    # The mesh of most of the tree is the first one.
    state["w"] = np.zeros((256, 1024), np.float32)
    held["w"] = jax.device_put(state["w"], NamedSharding(row, P("x")))
    digest = digester.start(held, step=0).result()
    assert digest == tree_digest(state, step=0)
    assert len(digest.notes) == 10


def test_arrays_of_several_meshes_and_of_none_are_digested_together(
    tree: dict[str, Any], digester: DeviceDigest
):
    kernel = tree["parameters"]["kernel"]
    devices = np.array(jax.devices())
    keys = jax.random.split(jax.random.key(5), 1 << 14)
    line, back = Mesh(devices, ("x",)), Mesh(devices[::-1], ("x",))
    explicit = mesh(1, 4, 2, axis_types=(AxisType.Explicit,) * 3)
    half = Mesh(devices[:4], ("x",))
    held = {
        "line": jax.device_put(kernel, NamedSharding(line, P("x"))),
        "square": jax.device_put(kernel, NamedSharding(mesh(1, 4, 2), P("fsdp", "tensor"))),
        "explicit": jax.device_put(kernel, NamedSharding(explicit, P("fsdp", "tensor"))),
        "half": jax.device_put(kernel, NamedSharding(half, P("x"))),
        "back": jax.device_put(kernel, NamedSharding(back, P("x"))),
        "offloaded": jax.device_put(kernel, NamedSharding(line, P("x"), memory_kind="pinned_host")),
        "one": jax.device_put(kernel, devices[3]),
        "host": np.random.default_rng(1).normal(size=(8, 1024)),
        "key": jax.random.key(1),
        "keys": jax.device_put(keys, NamedSharding(line, P("x"))),
    }
    with jax.set_mesh(explicit):
        digest = digester.start(held, step=0).result()
    assert digest == tree_digest(held, step=0)
    note = "it lies on other devices than most of the tree; moved to be hashed"
    assert digest.notes == (f"back: {note}", f"half: {note}")


@pytest.mark.parametrize(
    ("elsewhere", "spec"), [("back", P()), ("back", P("fsdp")), ("half", P()), ("half", P("fsdp"))]
)
def test_replicas_on_other_devices_than_most_of_the_tree_are_compared(
    digester: DeviceDigest, elsewhere: str, spec: PartitionSpec
):
    devices = np.array(jax.devices())[:: -1 if elsewhere == "back" else 2].reshape(-1, 2)
    sharding = NamedSharding(Mesh(devices, ("data", "fsdp")), spec)
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    shards: list[jax.Array] = []
    for number, (device, index) in enumerate(
        sharding.addressable_devices_indices_map(array.shape).items()
    ):
        shard = array[index].copy()
        shard[1, 2] += number == 3
        shards.append(jax.device_put(shard, device))
    held = {
        "w": jax.make_array_from_single_device_arrays(array.shape, sharding, shards),
        "most": jax.device_put(np.zeros((64, 64), np.float32), NamedSharding(mesh(1, 8, 1), P())),
    }
    with pytest.raises(ReplicaError, match="w: .* hold different bits"):
        digester.start(held, step=0, every_replica=True).result()


def test_restored_into_another_sharding_it_keeps_its_digest(
    tree: dict[str, Any], digester: DeviceDigest, tmp_path: Path
):
    before = placed(tree, mesh(2, 1, 1), SPECS["replicated"])
    after = placed(tree, mesh(2, 2, 2), SPECS["both"])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", before)
        checkpointer.wait_until_finished()
        abstract: Callable[[Any], Any] = ocp.utils.to_shape_dtype_struct
        restored = checkpointer.restore(tmp_path / "state", jax.tree.map(abstract, after))
    assert restored["parameters"]["kernel"].sharding == after["parameters"]["kernel"].sharding
    digest = digester.start(restored, step=4).result()
    assert digest == digester.start(before, step=4).result() == tree_digest(tree, step=4)
