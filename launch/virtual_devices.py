"""Virtual CPU devices: how one process stands in for a mesh of several."""

import math
import os
from collections.abc import Iterable

from anh_jax.workbench import MeshSizes


def give_devices(meshes: Iterable[MeshSizes]) -> None:
    """Let jax start with as many virtual CPU devices as the largest mesh needs.

    A mesh of one device is left alone: more virtual devices make a larger thread pool, hence
    another execution class.
    """
    import jax

    count = max(math.prod(sizes.as_dict().values()) for sizes in meshes)
    given: int = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count > max(1, given) and not forced:
        jax.config.update("jax_num_cpu_devices", count)
