"""Lets Python keep the bytecode of what it imports where it may not keep it beside the sources.

A worker imports some 2,000 modules. With PYTHONDONTWRITEBYTECODE set, as container images often
have it, every process compiles them all again: 4 s of processor time instead of 1.5 s, for each of
the half dozen processes of a start. A folder of our own leaves the sources' folders as they are.
"""

import importlib.util
import sys
from pathlib import Path

import click

from launch.compile_cache import cache_folder


def keep_here() -> None:
    """Keep the bytecode of what this process imports from now on.

    An installation that came with bytecode, as uv's does here, is left alone: another folder would
    hide what lies beside the sources.
    """
    if _installed_with_bytecode():
        return
    if sys.dont_write_bytecode and not sys.pycache_prefix:
        sys.pycache_prefix = str(cache_folder() / "bytecode")
        sys.dont_write_bytecode = False


def _installed_with_bytecode() -> bool:
    return Path(importlib.util.cache_from_source(str(click.__file__))).exists()


def variables_for_children() -> dict[str, str]:
    """Return the variables with which child processes keep theirs in the same folder."""
    if not sys.pycache_prefix:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}
