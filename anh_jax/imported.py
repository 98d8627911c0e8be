"""Functions of the user's own, named in a config as `package.module:function`."""

import importlib
from collections.abc import Callable
from typing import Any

from anh_jax.errors import ConfigError


def load_function(path: str, *, key: str) -> Callable[..., Any]:
    """Import the function that the config key `key` names.

    Raises ConfigError naming the key where the module or the function is not there.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: {path}: {error}; install the module or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f"{key}: {path}: importing it raised {kind}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{key}: {path}: {module_name} has no function {name}")
    return function
