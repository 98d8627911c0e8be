"""Chooses who hashes: the host where arrays lie in its memory, the devices elsewhere."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from anh_jax.digest.digester import Digester, HostDigest
from anh_jax.digest.frozen import FrozenTops
from anh_jax.training.exchange import process_exchange

if TYPE_CHECKING:
    from anh_jax.digest.device import DeviceDigest
    from anh_jax.digest.kernel_choice import KernelChoice

DigesterSetting = Literal["auto", "host", "device"]


@dataclass(frozen=True)
class ChosenDigester:
    """A digester, and in words which one it is."""

    digester: Digester
    words: str


def choose_digester(setting: DigesterSetting, mesh: Mesh, *, alg: str) -> ChosenDigester:
    """Return the digester for a mesh; every choice gives the same bytes.

    `auto` hashes on the host where all devices are CPUs: their memory is the host's, and its
    compiled hash is many times as fast as one made of array operations. On accelerators the
    devices hash what they hold, by kernels that have hashed rightly there a moment ago. Every
    process of the mesh calls it, and all choose alike.
    """
    platforms = sorted({device.platform for device in mesh.devices.flat})
    if setting == "host" or (setting == "auto" and platforms == ["cpu"]):
        return ChosenDigester(HostDigest(alg, process_exchange()), f"host, {alg}")
    from anh_jax.digest.device import DeviceDigest

    place = f"device, {alg}, {'+'.join(platforms)}"
    if alg != "blake3" or platforms == ["cpu"]:  # there are no kernels to choose from
        return ChosenDigester(_remembering(DeviceDigest(alg)), place)
    choice = agreed_kernels(mesh.local_devices[0])
    words = f"{place}, {choice.name} kernels" + (f" ({choice.reason})" if choice.reason else "")
    return ChosenDigester(_remembering(DeviceDigest(alg, choice.kernels)), words)


def _remembering(digester: "DeviceDigest") -> Digester:
    """Hash frozen weights once, where one process sees all of the mesh."""
    from anh_jax.digest.device_frozen import FrozenAside

    if jax.process_count() > 1:
        return digester
    return FrozenAside(digester, FrozenTops(digester.alg))


def agreed_kernels(device: Any) -> "KernelChoice":
    """Return the kernels that this device has been seen to hash rightly by, alike on all processes.

    Two programs on one mesh would wait for each other forever, so what fails on one process is
    left by all.
    """
    from anh_jax.digest.kernel_choice import checked_kernels

    choice = checked_kernels(device)
    if _everywhere(choice.name == "pallas"):
        return _agreed_in_place(choice)
    if choice.name == "xla":
        return choice
    fallen_back = checked_kernels(device, prefer="xla")
    return replace(fallen_back, reason="Pallas failed on another process; XLA hashes, slower")


def _agreed_in_place(choice: "KernelChoice") -> "KernelChoice":
    """Read tensors where they lie only if every process does."""
    here = choice.kernels.tensor_chunks is not None
    if _everywhere(here) or not here:
        return choice
    reason = "reading tensors where they lie failed on another process; they are copied"
    return replace(choice, kernels=replace(choice.kernels, tensor_chunks=None), reason=reason)


def _everywhere(holds: bool) -> bool:
    """Tell whether something holds on every process."""
    if jax.process_count() == 1:
        return holds
    from jax.experimental import multihost_utils

    return bool(np.asarray(multihost_utils.process_allgather(np.array([holds]))).all())
