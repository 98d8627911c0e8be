import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anh_jax.digest import device_plan
from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.digester import Digester
from anh_jax.digest.exchange import ReplicaError
from anh_jax.digest.host import tree_digest
from anh_jax.digest.pallas_gpu import gpu_kernels
from anh_jax.digest.pallas_tpu import tpu_kernels
from anh_jax.errors import AnhError
from attest.digest_tree import ELEMENT_BYTES, LARGEST_BYTE
from attest.errors import AttestError

P = PartitionSpec


@pytest.fixture(scope="module")
def digester() -> DeviceDigest:
    return DeviceDigest()


def line(count: int = 8) -> Mesh:
    return Mesh(np.array(jax.devices()[:count]), ("x",))


def random_bits(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, 2**32, shape, np.uint32)
    return words.view(np.float32)


@pytest.mark.parametrize("alg", ["blake3", "sha256"])
def test_golden_state_has_the_digest_of_the_documented_bytes(
    golden_state: dict[str, Any], slow_digest: Callable[..., bytes], alg: str
):
    digest = DeviceDigest(alg).start(golden_state, step=7).result()
    assert digest.root == slow_digest(golden_state, step=7, alg=alg)
    assert digest == tree_digest(golden_state, step=7, alg=alg)
    assert digest.notes == ()


def of_every_dtype(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    tree = {}
    for at, (name, size) in enumerate(ELEMENT_BYTES.items()):
        shape = [(5, 7), (), (3, 2, 2, 1, 3), (129,)][at % 4]
        raw = random.integers(0, 256, math.prod(shape) * size, np.uint8)
        raw &= LARGEST_BYTE.get(name, 255)
        tree[name] = raw.view(np.dtype(getattr(ml_dtypes, name, name))).reshape(shape)
    tree["wide"] = {"rows": random_bits((4096, 24), seed), "prime": random_bits((10007,), seed)}
    return tree


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_bits_of_every_dtype_have_the_digest_of_the_host(digester: DeviceDigest, seed: int):
    tree = of_every_dtype(seed)
    assert digester.start(tree, step=seed).result() == tree_digest(tree, step=seed)


def test_it_is_a_digester_that_lags_by_one_step(digester: DeviceDigest):
    assert isinstance(digester, Digester)
    assert digester.lag == 1


@pytest.fixture
def compiled() -> Any:
    """Count what the backend compiles in a test."""
    names: list[str] = []

    def listen(name: str, seconds: float, **_: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_one_program_serves_all_steps_of_a_layout(compiled: list[str]):
    digester = DeviceDigest()
    trees = [{"w": jnp.asarray(random_bits((64, 64), seed))} for seed in range(3)]
    jax.block_until_ready(trees)
    compiled.clear()
    roots = {digester.start(tree, step=0).result().root for tree in trees}
    assert len(roots) == 3
    assert len(compiled) == 1


def test_thousand_tensors_are_one_small_program(compiled: list[str]):
    shapes = [(64, 128), (128,), (768,), (3, 5), (256, 64), (33, 7), (), (1000,), (96, 32), (9,)]
    tree = {f"t{i}": jnp.asarray(random_bits(shapes[i % 10], i)) for i in range(1000)}
    jax.block_until_ready(tree)
    compiled.clear()
    digester = DeviceDigest()
    assert digester.start(tree, step=1).result() == tree_digest(tree, step=1)
    assert len(compiled) == 1
    text = digester.lower(tree).as_text()
    # Loops: full chunks and merges (two each: over slabs, over rounds), last chunks by blocks.
    assert text.count("stablehlo.while") <= 20
    assert len(re.findall(r"^ +%\S+ = ", text, re.MULTILINE)) < 12_000


def test_large_state_is_hashed_in_batches_cut_between_tiles(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_plan, "_BATCH_BYTES", 1 << 17)
    monkeypatch.setattr(device_plan, "_BATCHES", 4)
    tree = {
        "large": random_bits((3, 512, 512)),
        "row": random_bits((1, 1 << 17)),
        "b": random_bits((9,)),
    }
    digester = DeviceDigest()
    assert digester.start(tree, step=0).result() == tree_digest(tree, step=0)
    (prepared,) = digester._prepared.values()
    assert len(prepared.plan.batches) > 3
    assert len({piece.tensor for batch in prepared.plan.batches for piece in batch}) == 3
    # Copies of two batches in memory at once would take more than the state itself.
    memory = digester.lower(tree).compile().memory_analysis()
    assert memory.temp_size_in_bytes < sum(array.nbytes for array in tree.values())


# 2026-11: JAX 0.12 says so of the GPU kernels' backend; it still gives the same bits.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "kernels", [gpu_kernels, pytest.param(tpu_kernels, marks=pytest.mark.full)]
)
def test_whole_program_runs_on_kernels_for_accelerators(kernels: Callable[..., Any]):
    array = random_bits((256, 256))
    tree = {"w": jax.device_put(array, NamedSharding(line(4), P("x"))), "b": np.ones(5, np.float16)}
    digest = DeviceDigest(kernels=kernels("interpreted")).start(tree, step=0).result()
    assert digest == tree_digest({"w": array, "b": tree["b"]}, step=0)


def test_digest_started_before_a_donating_step_is_of_the_state_before(digester: DeviceDigest):
    on = NamedSharding(line(), P("x"))
    add = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=on)
    array = random_bits((64, 64))
    state = {"w": jax.device_put(array, on)}
    pending = digester.start(state, step=3)
    add(state["w"])
    assert state["w"].is_deleted()
    assert pending.result() == tree_digest({"w": array}, step=3)
    with pytest.raises(AnhError, match="w: buffer was donated or deleted; digest before the step"):
        digester.start(state, step=3)


def test_start_does_not_wait_for_the_values(digester: DeviceDigest):
    digester.start({"w": jnp.zeros((64, 64))}, step=0).result()
    turn = jax.jit(lambda x: jax.lax.fori_loop(0, 24, lambda _, y: jnp.tanh(y @ y), x)[:64, :64])
    matrix = jnp.ones((1024, 1024))
    turn(matrix).block_until_ready()
    value = turn(matrix)
    pending = digester.start({"w": value}, step=0)
    waited = value.is_ready()
    assert pending.result() == tree_digest({"w": value}, step=0)
    assert not waited


def test_what_has_no_digest_is_refused(digester: DeviceDigest):
    tree = {"w": np.zeros(3, np.float32)}
    for step in (-1, 2**53, True):
        with pytest.raises(AnhError, match="not a count of completed steps"):
            digester.start(tree, step=step)
    with pytest.raises(AnhError, match="weakly typed"):
        digester.start({"w": jnp.asarray(1.0)}, step=0)
    with pytest.raises(AnhError, match="dtype str"):
        digester.start({"w": np.array(["a"])}, step=0)
    with pytest.raises(AttestError, match="md5"):
        DeviceDigest("md5")


def with_one_bit_flipped(array: np.ndarray, at: int) -> jax.Array:
    """Return an array that is replicated, but for one bit on one device."""
    other = array.copy()
    other.reshape(-1).view(np.uint32)[-1] ^= 1 << 22
    devices = jax.devices()[:4]
    copies = [other if index == at else array for index in range(4)]
    shards = [jax.device_put(*pair) for pair in zip(copies, devices, strict=True)]
    sharding = NamedSharding(line(4), P())
    return jax.make_array_from_single_device_arrays(array.shape, sharding, shards)


LARGE = random_bits((256, 256), 1)
SMALL = random_bits((64,), 2)


@pytest.fixture(scope="module")
def sharded() -> jax.Array:
    return jax.device_put(random_bits((64, 128)), NamedSharding(line(4), P("x")))


@pytest.mark.parametrize(("at", "named"), [(2, "cpu:2 and cpu:0"), (0, "cpu:1, .*cpu:3 and cpu:0")])
def test_bit_that_differs_on_one_replica_is_named(
    digester: DeviceDigest, sharded: jax.Array, at: int, named: str
):
    tree = {"s": sharded, "w": with_one_bit_flipped(LARGE, at), "z": with_one_bit_flipped(SMALL, 9)}
    pending = digester.start(tree, step=0, every_replica=True)
    with pytest.raises(ReplicaError, match=f"w: .*{named} hold different bits") as caught:
        pending.result()
    assert caught.value.exit_code == 1


def test_replicas_share_the_work_on_large_tensors_and_small_ones_are_always_compared(
    digester: DeviceDigest, sharded: jax.Array
):
    tree = {"s": sharded, "w": with_one_bit_flipped(LARGE, 1), "z": with_one_bit_flipped(SMALL, 9)}
    whole = {"s": sharded, "w": LARGE, "z": SMALL}
    # Device 1 hashes another part of w than the one whose bit differs: only an audit sees it.
    assert digester.start(tree, step=0).result() == tree_digest(whole, step=0)
    tree = {**tree, "z": with_one_bit_flipped(SMALL, 3)}
    with pytest.raises(ReplicaError, match=r"z: \S*cpu:3 and \S*cpu:0 hold"):
        digester.start(tree, step=0).result()


def test_equal_replicas_pass_where_every_one_is_hashed(digester: DeviceDigest, sharded: jax.Array):
    nan = np.full((256, 256), np.nan, np.float32)
    tree = {"s": sharded, "w": with_one_bit_flipped(nan, 9), "z": with_one_bit_flipped(SMALL, 9)}
    digest = digester.start(tree, step=0, every_replica=True).result()
    assert digest == tree_digest({"s": sharded, "w": nan, "z": SMALL}, step=0)


@pytest.mark.parametrize("setting", [jax.numpy_rank_promotion("raise"), jax.disable_jit()])
def test_settings_of_jax_that_are_for_the_callers_own_code_do_not_count(setting: Any):
    tree = {"w": jnp.arange(300, dtype=jnp.float32)}
    with setting:
        digest = DeviceDigest().start(tree, step=1).result()
    assert digest == tree_digest(tree, step=1)
