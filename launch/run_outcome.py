"""How a run's workers ended, whichever runner started them, and what they execute."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from anh_jax.training.seams import AttemptGrant
from launch.errors import CommandError

DEFAULT_ENTRY = "anh_jax.training.worker:train_worker"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a runner returns once its workers have returned.

    `interrupted`: they were asked to stop, wrote a training checkpoint and did; exit status 130.
    `attempts` are those granted by this driver and `generations` the groups it started.
    """

    ending: Literal["finished", "interrupted"]
    attempts: tuple[AttemptGrant, ...]
    generations: int


def load_entry(entry: str) -> Callable[..., Any]:
    """Return the function that `entry`, a "module:function" text, names."""
    module, _, name = entry.partition(":")
    if not module or not name:
        raise CommandError(f"worker entry {entry!r}: write it as module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise CommandError(f"worker entry {entry!r}: {error}; is the module installed?") from error
    return found
