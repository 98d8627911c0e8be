"""The kernels that are shipped, unrolled, lowered for accelerators that are not here."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from anh_jax.digest.kernels import Kernels
from anh_jax.digest.pallas_gpu import gpu_kernels
from anh_jax.digest.pallas_tpu import tpu_kernels
from anh_jax.digest.roofline import BLAKE3_OPS

KERNELS = {"gpu": gpu_kernels, "tpu": tpu_kernels}
LOWERED_FOR = {"gpu": "cuda", "tpu": "tpu"}
CUSTOM_CALL = {"gpu": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}
DEVICE = {
    "gpu": AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu"),
    "tpu": AbstractDevice(device_kind="TPU v5p", num_cores=2, platform="tpu"),
}
# One; less than a step of a grid; ragged; whole; more than 4 GiB of words (64-bit offsets).
ROWS = (1, 700, 5000, 1 << 16, (1 << 22) + 1)


def operands(n: int, width: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return the shapes of words, counters, key and flags."""
    return tuple(jax.ShapeDtypeStruct(s, jnp.uint32) for s in ((n, width), (n,), (8,), ()))


def traced(kernels: Kernels, one: str, n: int) -> Any:
    if one == "chunks":
        words, counters, key, _ = operands(n, 256)
        return jax.jit(kernels.chunks, static_argnums=3).trace(words, counters, key, 64)
    words, _, key, flags = operands(n, 16)
    return jax.jit(kernels.parents).trace(words, key, flags)


# 2026-11: jax 0.11 and later announce that Mosaic GPU will replace Triton.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("platform", KERNELS)
@pytest.mark.parametrize("one", ["chunks", "parents"])
@pytest.mark.parametrize("n", ROWS)
def test_kernels_lower_for_a_platform_that_is_not_here(platform: str, one: str, n: int) -> None:
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=DEVICE[platform])):
        lowered = traced(KERNELS[platform](), one, n).lower(
            lowering_platforms=(LOWERED_FOR[platform],)
        )
    text = lowered.as_text()
    assert text.count(f"@{CUSTOM_CALL[platform]}(") == 1
    assert f"blake3_{one}" in text


def equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@functools.cache
def lane_operations(platform: str, one: str) -> Counter[str]:
    """Count the operations on whole uint32 states in a kernel, which holds one compression."""
    (call,) = [
        each
        for each in equations(traced(KERNELS[platform](), one, 1 << 16).jaxpr.jaxpr)
        if each.primitive.name == "pallas_call"
    ]
    lanes = {"gpu": (32,), "tpu": (16, 128)}[platform]
    return Counter(
        each.primitive.name
        for each in equations(call.params["jaxpr"])
        if each.outvars
        and getattr(each.outvars[0].aval, "shape", None) == lanes
        and each.outvars[0].aval.dtype == jnp.uint32
    )


@pytest.mark.parametrize("platform", KERNELS)
@pytest.mark.parametrize("one", ["chunks", "parents"])
def test_a_block_costs_the_operations_of_the_roofline(platform: str, one: str) -> None:
    found = lane_operations(platform, one)
    shifts = found["shift_left"] + found["shift_right_logical"]
    tpu = BLAKE3_OPS["tpu"]
    assert (found["add"], found["xor"] + found["or"], shifts) == (tpu.adds, tpu.logic, tpu.shifts)
    # A GPU joins a rotation's three operations, and the two adds of a sum of three.
    gpu = BLAKE3_OPS["gpu"]
    assert (found["or"], found["xor"], found["add"] - found["or"] // 2) == (
        gpu.shifts,
        gpu.logic,
        gpu.adds,
    )


def test_the_grid_step_of_a_tpu_fits_its_vector_memory_twice() -> None:
    """16 MiB is the least of any TPU; the grid's pipeline holds two of each block."""
    (call,) = [
        each
        for each in equations(traced(tpu_kernels(), "chunks", 1 << 16).jaxpr.jaxpr)
        if each.primitive.name == "pallas_call"
    ]
    mapping = call.params["grid_mapping"]
    blocks = [each.block_aval.size * 4 for each in mapping.block_mappings]
    scratch = [
        each.aval.size * 4 for each in call.params["jaxpr"].invars[len(mapping.block_mappings) :]
    ]
    assert len(blocks) == 4 and len(scratch) == 1
    assert 2 * sum(blocks) + sum(scratch) <= 8 << 20
