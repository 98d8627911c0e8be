"""The GPU kernels on a GPU, compared with the host's digests. Run with JAX_PLATFORMS unset or cuda.

`JAX_PLATFORMS=cuda,cpu pytest -m gpu tests/anh_jax/digest`
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blake3 import blake3

from anh_jax.digest.blake3_xla import derive_key_mode, hash_messages
from anh_jax.digest.device import DeviceDigest
from anh_jax.digest.host import tree_digest
from anh_jax.digest.kernel_choice import checked_kernels
from anh_jax.digest.pallas_gpu import gpu_kernels

pytestmark = [
    pytest.mark.gpu,
    # 2026-11: jax 0.11 and later announce that Mosaic GPU will replace Triton.
    pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def gpu() -> Any:
    try:
        return jax.devices("gpu")[0]
    except RuntimeError as error:
        pytest.skip(f"JAX sees no GPU: {error}")


def test_the_kernels_pass_their_check(gpu: Any) -> None:
    choice = checked_kernels(gpu)
    assert (choice.name, choice.reason) == ("pallas", None)


@pytest.mark.parametrize(("messages", "length"), [(1, 3_000_000), (5000, 5000), (700, 32768)])
def test_messages_hash_as_the_package_hashes_them(gpu: Any, messages: int, length: int) -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (messages, length // 4), np.uint32)
    mode, kernels = derive_key_mode("anh v1 tile"), gpu_kernels()
    digests = jax.jit(lambda words: hash_messages(words, length, mode, kernels))(
        jax.device_put(rows, gpu)
    )
    for row, digest in zip(rows, np.asarray(digests), strict=True):
        assert digest.tobytes() == blake3(row.tobytes(), derive_key_context="anh v1 tile").digest()


def test_a_state_on_the_gpu_has_the_digest_that_the_host_gives(
    gpu: Any, golden_state: dict[str, Any]
) -> None:
    types = golden_state["types"]
    state = golden_state | {  # 64-bit elements are no JAX arrays without x64
        "types": {name: value for name, value in types.items() if value.dtype.itemsize < 8},
        "optimizer": {"count": golden_state["optimizer"]["count"], "none": None},
    }
    on_gpu = jax.device_put(state, gpu)
    digest = DeviceDigest(kernels=checked_kernels(gpu).kernels).start(on_gpu, step=3).result()
    assert digest == tree_digest(on_gpu, step=3)


def test_large_tensors_are_read_in_place_to_the_digest_that_the_host_gives(gpu: Any) -> None:
    shapes = {"square": (4096, 4096), "vocabulary": (50257, 384), "stack": (6, 1536, 2304)}
    rng, state = np.random.default_rng(1), dict[str, np.ndarray]()
    for name, shape in shapes.items():
        bits = rng.integers(0, 2**32, shape, np.uint32)
        state[name] = bits.view(np.float32)
        state[f"{name}, halves"] = bits.view(jnp.bfloat16)
        state[f"{name}, bytes"] = bits.view(np.int8)
    digester = DeviceDigest(kernels=gpu_kernels())
    assert digester.start(jax.device_put(state, gpu), step=3).result() == tree_digest(state, step=3)
    (prepared,) = digester._prepared.values()
    assert sum(how is not None for how in prepared.plan.in_place) == len(state)
