"""Exports parameters to safetensors by one deterministic rule.

The file is `model.safetensors`. Names are the parameter paths joined by dots; tensors keep dtype
and shape; there is no metadata. The bytes are those of the safetensors format with tensors ordered
by falling alignment of their dtype, then by name, which is the order its writer gives. So whoever
has the final state can make the same bytes, and `final` may name the file by SHA-256.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from anh_jax.errors import AnhError
from anh_jax.program.tree import leaves_of
from anh_jax.run_directory import write_atomically

FILE_NAME = "model.safetensors"


def gathered(parameters: Mapping[str, Any]) -> Any:
    """Return the parameters as numpy arrays, whole on every process.

    Arrays sharded over processes are gathered, so every process must call this.
    """
    return jax.tree.map(_on_host, parameters)


def exported_bytes(parameters: Mapping[str, Any]) -> bytes:
    """Return the safetensors bytes of nested dicts of numpy arrays.

    Raises AnhError where two paths give one name.
    """
    named: dict[str, np.ndarray] = {}
    for path, leaf in leaves_of(parameters).items():
        name = ".".join(path)
        if name in named:
            raise AnhError(f"export: two parameters are called {name}; rename one of them")
        named[name] = np.asarray(leaf)
    return safetensors.numpy.save(named)


def write_export(data: bytes, folder: Path) -> Path:
    """Write exported bytes into `folder` and return the file's path."""
    path = folder / FILE_NAME
    write_atomically(path, data)
    return path


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:
            return np.array(leaf.addressable_data(0))
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.array(leaf)
