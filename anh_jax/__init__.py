"""anh: train Flax models so that anyone can check, later and cheaply, what was trained.

The names below are the library door for training loops that are not ours; they are imported when
they are first used, so that `import anh_jax` alone costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anh_jax.experiment import Experiment, load_experiment
    from anh_jax.models.modules import model_from_nnx
    from anh_jax.own_loop import OwnRun, open_run
    from anh_jax.preparation import PreparedContract, prepare

_DOOR = {
    "Experiment": "anh_jax.experiment",
    "OwnRun": "anh_jax.own_loop",
    "PreparedContract": "anh_jax.preparation",
    "load_experiment": "anh_jax.experiment",
    "model_from_nnx": "anh_jax.models.modules",
    "open_run": "anh_jax.own_loop",
    "prepare": "anh_jax.preparation",
}

__all__ = [
    "Experiment",
    "OwnRun",
    "PreparedContract",
    "load_experiment",
    "model_from_nnx",
    "open_run",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'anh_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_DOOR[name]), name)
