"""Choose the BLAKE3 kernels of a device, and believe them only once they have hashed rightly there.

A kernel that no device has run yet may fail to compile, or compile to something else: a digest must
then be slower, never wrong. So whatever is chosen hashes a known array on the device first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from blake3 import blake3

from anh_jax.digest.blake3_xla import derive_key_mode, hash_messages
from anh_jax.digest.in_place_check import failure, find_fault_in_place
from anh_jax.digest.kernels import CHUNK_BYTES, CHUNK_WORDS, Kernels, xla_kernels
from anh_jax.errors import AnhError, ConfigError

Build: TypeAlias = Callable[[], Kernels]
Device: TypeAlias = Any  # jax.Device, which is no type to a static checker
Preference: TypeAlias = Literal["auto", "xla", "pallas"]


def _pallas_gpu() -> Kernels:
    # 2026-11: imported when it is used, as JAX has announced that Pallas will drop Triton.
    from anh_jax.digest.pallas_gpu import gpu_kernels

    return gpu_kernels()


def _pallas_tpu() -> Kernels:
    from anh_jax.digest.pallas_tpu import tpu_kernels

    return tpu_kernels()


_PALLAS: dict[str, Build] = {"gpu": _pallas_gpu, "tpu": _pallas_tpu}
# Compressions at a time that keep an accelerator busy; on CPU the default stays in the cache.
_ACCELERATOR_LANES = 1 << 16

_CONTEXT = "anh v1 self-check"
# 2,100 chunks: more than one step of every grid, and the last of it is not full. Three chunks a
# message have a parent, a carried chunk and a root.
_MESSAGES, _CHUNKS = 700, 3


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Hold the kernels a device uses, which they are, and why not others (one line, or None)."""

    kernels: Kernels
    name: Literal["pallas", "xla"]
    reason: str | None = None


def kernels_for(platform: str, *, prefer: Preference = "auto") -> Kernels:
    """Return the kernels for devices of JAX's `platform` (`cpu`, `gpu`, `tpu`), unchecked.

    `auto` is Pallas where there is a kernel for the platform. Raises ConfigError if `pallas` is
    asked for where there is none.
    """
    if prefer != "xla" and platform in _PALLAS:
        return _PALLAS[platform]()
    if prefer == "pallas":
        raise ConfigError(
            f"digest kernels: Pallas has none for {platform}, only for {', '.join(_PALLAS)}; "
            "choose auto or xla"
        )
    return xla_kernels() if platform == "cpu" else xla_kernels(_ACCELERATOR_LANES)


def checked_kernels(device: Device, *, prefer: Preference = "auto") -> KernelChoice:
    """Return kernels that have hashed a known array rightly on this device.

    With `auto`, Pallas kernels that do not compile or give other bits are left for XLA's, and the
    choice says why; if only the one that reads tensors where they lie fails, only it is left out.
    All processes of a run must come to the same choice: compare `name`, and whether there is a
    `tensor_chunks`, before the first collective.

    Raises:
        ConfigError: `pallas` is asked for, and there is none or it fails.
        AnhError: XLA's kernels fail as well: the device or its compiler computes wrongly.
    """
    platform, kind = device.platform, device.device_kind
    if prefer == "xla" or (prefer == "auto" and platform not in _PALLAS):
        return _checked_xla(device, None)
    fault = find_fault(lambda: kernels_for(platform, prefer="pallas"), device)
    if fault is None:
        kernels = kernels_for(platform, prefer="pallas")
        slower = find_fault_in_place(kernels, device)
        if slower is None:
            return KernelChoice(kernels, "pallas")
        reason = f"Pallas on {kind}, reading tensors where they lie, {slower}; they are copied"
        return KernelChoice(replace(kernels, tensor_chunks=None), "pallas", reason)
    if prefer == "pallas":
        raise ConfigError(f"digest kernels: Pallas on {kind} {fault}; choose auto or xla")
    return _checked_xla(device, f"Pallas on {kind} {fault}; XLA hashes, slower")


def find_fault(build: Build, device: Device) -> str | None:
    """Hash a known array on a device; return what is wrong in one line, or None if nothing is."""
    mode = derive_key_mode(_CONTEXT)
    words = np.arange(_MESSAGES * _CHUNKS * CHUNK_WORDS, dtype=np.uint32) * np.uint32(2654435761)
    rows = words.reshape(_MESSAGES, _CHUNKS * CHUNK_WORDS)

    def hash_rows(words: jax.Array) -> jax.Array:
        return hash_messages(words, _CHUNKS * CHUNK_BYTES, mode, build())

    try:
        digests = np.asarray(jax.jit(hash_rows)(jax.device_put(rows, device)))
    # What a compiler of kernels may raise is not one type; whatever it is, these kernels are out.
    except Exception as error:
        return failure(error)
    wrong = sum(
        digest.tobytes() != blake3(row.tobytes(), derive_key_context=_CONTEXT).digest()
        for digest, row in zip(digests, rows, strict=True)
    )
    return f"hashed {wrong} of {_MESSAGES} messages wrongly" if wrong else None


def _checked_xla(device: Device, reason: str | None) -> KernelChoice:
    kernels = kernels_for(device.platform, prefer="xla")
    fault = find_fault(lambda: kernels, device)
    if fault is not None:
        raise AnhError(
            f"digest kernels: XLA on {device.device_kind} {fault}; no digest of this device can "
            "be trusted: update its driver and jaxlib, or digest on the host"
        )
    return KernelChoice(kernels, "xla", reason)
