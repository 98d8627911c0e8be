"""Tensors that are hashed where they lie: which, from where on, and to the same digest."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    use_abstract_mesh,
)

from anh_jax.digest import device_program, in_place
from anh_jax.digest.blake3_xla import blake3_tiles
from anh_jax.digest.block_cut import BlockCut, block_cut
from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.device_plan import make_plan
from anh_jax.digest.device_program import make_program
from anh_jax.digest.host import tree_digest
from anh_jax.digest.in_place import arriving, in_place_batches, read_in_place
from anh_jax.digest.kernels import Kernels, xla_kernels
from anh_jax.digest.pallas_gpu import gpu_kernels
from anh_jax.digest.placement import PrimeMesh, place
from anh_jax.digest.tensor_cut import TensorCut, cut_tensor
from attest.digest_tree import tile_grid
from attest.tensor_header import TensorHeader, TensorKind

P = PartitionSpec
WHOLE = P()
H200 = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
# 2026-11: jax 0.11 and later announce that Mosaic GPU will replace Triton.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The Pallas Triton backend is deprecated:DeprecationWarning"
)


def two_by_four() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("a", "b"))


def tensor(
    mesh: PrimeMesh,
    shape: tuple[int, ...],
    dtype: str = "float32",
    spec: PartitionSpec = WHOLE,
    *,
    of: Mesh | None = None,
    every_replica: bool = False,
) -> TensorCut:
    itemsize = jnp.dtype(dtype).itemsize
    header = TensorHeader(("w",), TensorKind.ARRAY, dtype, "", shape, tile_grid(shape, itemsize))
    held = mesh.axes(NamedSharding(of or mesh.mesh, spec), len(shape))
    assert held is not None
    return cut_tensor(mesh, header, place(mesh, held, header, every_replica=every_replica))


def alone() -> PrimeMesh:
    return PrimeMesh.over(Mesh(np.array(jax.devices()[:1]), ("x",)))


SHAPES = ((256, 384), (97, 768), (8, 64, 384), (512, 1536), (2, 2, 64, 512), (1 << 17,))
SPECS = ((), ("a",), ("b",), (("a", "b"),), (None, "a"), (None, "b"), ("b", "a"), (None, ("b",)))


@given(st.sampled_from(SHAPES), st.sampled_from(SPECS), st.sampled_from([False, True]))
def test_each_device_reads_the_tiles_that_are_its_own(
    shape: tuple[int, ...], entries: tuple[Any, ...], every_replica: bool
):
    mesh, spec = two_by_four(), P(*entries[: len(shape)])
    sharding = NamedSharding(mesh, spec)
    if any(d % n for d, n in zip(shape, _parts(mesh, spec, len(shape)), strict=True)):
        return
    prime = PrimeMesh.over(mesh)
    cut = tensor(prime, shape, spec=spec, of=mesh, every_replica=every_replica)
    how = read_in_place(prime, cut)
    assert how is not None
    held = prime.sharding(arriving(cut.placement)).devices_indices_map(shape)
    own = prime.sharding(cut.placement.cut).devices_indices_map(shape)
    if arriving(cut.placement) == cut.placement.held:
        assert held == sharding.devices_indices_map(shape)
    words = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    for at, device in np.ndenumerate(prime.mesh.devices):
        places = dict(zip(prime.mesh.axis_names, at, strict=True))
        first = sum(places[name] * blocks for name, blocks in how.steps)
        local = words[held[device]].reshape(-1, 16)
        found = local[first + _places(how.cut)].reshape(how.cut.tiles, -1)
        assert np.array_equal(found, _tiles(words[own[device]], cut.tile))


def _parts(mesh: Mesh, spec: PartitionSpec, rank: int) -> list[int]:
    entries = [*spec, *[None] * (rank - len(spec))]
    names = [() if e is None else (e if isinstance(e, tuple) else (e,)) for e in entries]
    return [math.prod(mesh.shape[name] for name in each) for each in names]


def _places(cut: BlockCut) -> np.ndarray:
    return cut.place(np.arange(cut.tiles)[:, None], np.arange(cut.blocks)[None])


def _tiles(array: np.ndarray, tile: Sequence[int]) -> np.ndarray:
    pairs = [n for d, e in zip(array.shape, tile, strict=True) for n in (d // e, e)]
    order = (*range(0, len(pairs), 2), *range(1, len(pairs), 2))
    return array.reshape(pairs).transpose(order).reshape(-1, math.prod(tile))


def test_types_and_shapes_without_whole_blocks_are_copied():
    mesh = alone()
    for dtype in ("float32", "int32", "bfloat16", "float16", "int8"):
        assert read_in_place(mesh, tensor(mesh, (1024, 1024), dtype)) is not None
    # Bytes that are masked or joined before they are hashed; rows of 33 words, cut in halves.
    for dtype in ("bool", "int4", "float8_e4m3fn", "complex64"):
        assert read_in_place(mesh, tensor(mesh, (1024, 1024), dtype)) is None
    assert block_cut((1024, 264), (64, 132), (16, 2), 4) is None
    assert read_in_place(mesh, tensor(mesh, (16, 16))) is None


def test_a_launch_reads_many_megabytes_of_few_tensors_that_are_cut_alike():
    mesh = alone()
    layers = [tensor(mesh, (1024, 1024)) for _ in range(130)]
    others = [tensor(mesh, (1024, 2048)), tensor(mesh, (1024, 1024), "int32")]
    batches = in_place_batches(mesh, [others[0], *layers, others[1]])
    assert [len(members) for _, members in batches] == [43, 43, 44]
    assert [index for _, members in batches for index in members] == list(range(1, 131))
    assert in_place_batches(mesh, layers[:7]) == []
    assert len(in_place_batches(mesh, layers[:8])) == 1
    large = [tensor(mesh, (4096, 4096)) for _ in range(33)]
    assert [len(members) for _, members in in_place_batches(mesh, large)] == [11, 11, 11]


def bits(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    kind = jnp.dtype(dtype)
    raw = np.random.default_rng(len(shape)).bytes(math.prod(shape) * kind.itemsize)
    return np.frombuffer(raw, kind).reshape(shape)


@pytest.mark.parametrize("every_replica", [False, pytest.param(True, marks=pytest.mark.full)])
def test_sharded_tensors_read_in_place_have_the_digest_of_the_host(
    monkeypatch: pytest.MonkeyPatch, every_replica: bool
):
    monkeypatch.setattr(in_place, "LAUNCH_BYTES", 1 << 15)
    values = {
        "replicated": (bits((256, 256)), P()),
        "again": (bits((256, 256)), P()),
        "rows": (bits((512, 384), "bfloat16"), P("a")),
        "vocabulary": (bits((97, 768)), P(None, "b")),
        "halves": (bits((97, 1536), "bfloat16"), P()),
        "stack": (bits((8, 64, 384)), P("a")),
        "bytes": (bits((512, 768), "int8"), P(None, "a")),
        "small": (bits((33, 7)), P()),
    }
    mesh = two_by_four()
    tree = {
        name: jax.device_put(array, NamedSharding(mesh, spec))
        for name, (array, spec) in values.items()
    }
    # Levels of a tree are padded to `lanes`: an accelerator's would keep an interpreter busy.
    digester = DeviceDigest(kernels=replace(gpu_kernels("interpreted"), lanes=64))
    digest = digester.start(tree, step=0, every_replica=every_replica).result()
    host = tree_digest({name: array for name, (array, _) in values.items()}, step=0)
    assert digest.tensors == host.tensors
    assert digest.root == host.root
    (prepared,) = digester._prepared.values()
    read = [how for how in prepared.plan.in_place if how is not None]
    assert len(read) >= 4
    assert any(how.steps for how in read) != every_replica


def equations(jaxpr: Any) -> Iterator[Any]:
    """Walk all that runs on a device but the insides of kernels."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "pallas_call":
            continue
        for value in equation.params.values():
            for each in value if isinstance(value, tuple) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def gpt2_like(mesh: PrimeMesh) -> list[TensorCut]:
    shapes = [(50304, 768), *[(768, 2304), (768, 768), (768, 3072), (3072, 768)] * 12]
    return [tensor(mesh, shape) for shape in shapes * 3] + [tensor(mesh, (768,))]


def traced(kernels: Kernels) -> Any:
    """Trace the program of a state of 124 million parameters with Adam; nothing is allocated."""
    mesh = alone()
    cuts = gpt2_like(mesh)
    plan = make_plan(blake3_tiles(kernels), mesh, cuts)
    values = [jax.ShapeDtypeStruct(each.header.dims, jnp.float32) for each in cuts]
    program: Any = make_program(blake3_tiles(kernels), plan)
    with jax.set_mesh(mesh.mesh):
        return program.trace(values, plan.operands)


def largest_made(jaxpr: Any) -> int:
    """Return the elements of the largest array that is made by more than a new view or a kernel."""
    views = ("reshape", "bitcast_convert_type", "pallas_call", "jit", "pjit", "shard_map")
    return max(
        math.prod(var.aval.shape)
        for equation in equations(jaxpr)
        if equation.primitive.name not in views
        for var in equation.outvars
    )


def test_no_copy_of_a_large_tensor_stands_before_the_kernels_that_read_in_place():
    found = traced(gpu_kernels())
    jaxpr = found.jaxpr.jaxpr
    launches = [
        [math.prod(var.aval.shape) for var in each.invars[1:]]  # the first is key and flags
        for each in equations(jaxpr)
        if each.primitive.name == "pallas_call" and "tensor_chunks" in str(each.params)
    ]
    assert sorted(map(len, launches)) == [3, 18, 18, 18, 18, 36, 36]
    elements = sum(map(sum, launches))
    assert elements == 3 * (50304 * 768 + 12 * (768 * 2304 + 768 * 768 + 2 * 768 * 3072))
    # The largest array is the pool of all digests: 8 words for each 256, and all above them.
    assert largest_made(jaxpr) < 0.09 * elements
    copying = traced(replace(gpu_kernels(), tensor_chunks=None))
    assert largest_made(copying.jaxpr.jaxpr) > 0.1 * elements


def test_tensors_reach_the_kernels_as_a_device_holds_them():
    """In StableHLO for CUDA, between an argument and a launch there is a reshape and no more."""
    mesh = alone()
    cuts = gpt2_like(mesh)
    tree_hash = blake3_tiles(gpu_kernels())
    plan = make_plan(tree_hash, mesh, cuts)
    values = [jax.ShapeDtypeStruct(each.header.dims, jnp.float32) for each in cuts]

    def leaves(values: list[jax.Array], operands: Any) -> jax.Array:
        return device_program._hash_batches(tree_hash, plan, dict(enumerate(values)), operands)

    # JAX 0.12 lowers for a GPU that is not here only under a mesh that names it.
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=H200)):
        lowered = jax.jit(leaves).trace(values, plan.operands).lower(lowering_platforms=("cuda",))
    assert operands_of_launches(lowered.as_text()) == ["stablehlo.reshape %arg"] * (len(cuts) - 1)


def operands_of_launches(text: str) -> list[str]:
    """Return how StableHLO makes each tensor that a launch reads."""
    made: dict[str, str] = {}
    operands: list[str] = []
    for line in text.splitlines():
        if "func.func" in line:
            made.clear()
        name, _, maker = line.strip().partition(" = ")
        made[name] = maker
        if "@__gpu$xla.gpu.triton(" in maker and "tensor_chunks" in maker:
            names = maker.split("triton(")[1].split(")")[0].split(", ")
            operands += [re.sub(r"(%arg)\d+ :.*", r"\1", made[each]) for each in names[1:]]
    return operands


def test_kernels_without_the_operation_copy_all_tensors():
    mesh = alone()
    cuts = [tensor(mesh, (4096, 4096))]
    assert make_plan(blake3_tiles(xla_kernels()), mesh, cuts).in_place == (None,) * 1
    assert None not in make_plan(blake3_tiles(gpu_kernels()), mesh, cuts).in_place


def test_what_was_moved_between_devices_is_read_in_place_as_elements_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(in_place, "LAUNCH_BYTES", 0)
    launches: list[list[str]] = []

    def tensor_chunks(tensors: Sequence[jax.Array], cut: BlockCut, *unused: Any) -> jax.Array:
        launches.append([each.dtype.name for each in tensors])
        return jnp.zeros((len(tensors) * cut.tiles * cut.chunks, 8), jnp.uint32)

    line = Mesh(np.array(jax.devices()[:8]), ("x",))
    array = np.zeros((4096, 256), jnp.bfloat16)
    tree = {
        "aligned": jax.device_put(array, NamedSharding(line, P("x"))),
        "split": jax.device_put(array, NamedSharding(line, P(None, "x"))),
    }
    DeviceDigest(kernels=replace(xla_kernels(), tensor_chunks=tensor_chunks)).lower(tree)
    assert launches == [["bfloat16", "bfloat16"]]
