"""Chooses who hashes: the host where arrays lie in its memory, the devices elsewhere."""

from dataclasses import dataclass
from typing import Literal

from jax.sharding import Mesh

from anh_jax.digest.digester import Digester, HostDigest
from anh_jax.training.exchange import process_exchange

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
    devices hash what they hold, and 32 bytes a tensor leave them.
    """
    platforms = sorted({device.platform for device in mesh.devices.flat})
    if setting == "host" or (setting == "auto" and platforms == ["cpu"]):
        return ChosenDigester(HostDigest(alg, process_exchange()), f"host, {alg}")
    from anh_jax.digest.device import DeviceDigest

    digester = DeviceDigest(alg)
    return ChosenDigester(digester, f"device, {alg}, {'+'.join(platforms)}")
