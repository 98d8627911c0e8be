"""The device mesh: the one place that asks jax for its devices."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import Array

from anh_jax.errors import ConfigError
from anh_jax.models.axes import spec_of
from anh_jax.program.signature import AXES
from anh_jax.program.tensors import partition_spec


def make_mesh(*, data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Make the mesh with these axis sizes over all processes' devices.

    One process may leave devices over; several must use all of theirs.

    Raises:
        ConfigError: there are fewer devices, or several processes and not all devices are used.
    """
    sizes = (data, fsdp, tensor)
    devices = jax.devices()
    count = math.prod(sizes)
    if count > len(devices) or (count != len(devices) and jax.process_count() > 1):
        asked = " x ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
        raise ConfigError(
            f"mesh: {asked} needs {count} devices, {jax.process_count()} process(es) have"
            f" {len(devices)}; change mesh.data, mesh.fsdp or mesh.tensor{_more_workers(count)}"
        )
    # Explicit axis types, jax's default, refuse ordinary losses; Auto lets the partitioner choose.
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices[:count])


def _more_workers(count: int) -> str:
    # A process has one CPU device unless it asks for more, so more processes are the way.
    one = jax.process_count() == 1 and jax.default_backend() == "cpu"
    return f", or run on {count} CPU processes with --workers {count}" if one else ""


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first dimension is the batch."""
    return NamedSharding(mesh, partition_spec(spec_of(("batch",))))


def place_examples(mesh: Mesh, examples: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Put a whole batch, equal on every host, onto the mesh; each device gets its rows.

    Raises:
        ConfigError: the batch does not split over the mesh's batch axes.
    """
    sharding = batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    placed: dict[str, Array] = {}
    for name, values in examples.items():
        if values.shape[0] % parts:
            raise ConfigError(
                f"batch: {values.shape[0]} examples do not split over mesh data x fsdp = {parts};"
                " use a multiple"
            )
        placed[name] = _place(values, sharding)
    return placed


def _place(values: np.ndarray, sharding: NamedSharding) -> Array:
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
