"""Where compiled and exported programs are kept between runs.

Imports nothing: jax reads the place from the environment when it is first imported, so a command
sets it before it imports anything that does.
"""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of everything that is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anh"


def set_compile_cache() -> None:
    """Keep compiled programs between runs, unless the environment names a place already."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
    # A start compiles a dozen small programs; the default keeps only those that took a second.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
