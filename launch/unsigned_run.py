"""Runs that were trained with nothing signed, so that no command asks to wait for signatures."""

from pathlib import Path

NOTHING_SIGNED = "nothing was signed (attest.mode: off), so nothing can be verified"


def is_unsigned(directory: Path) -> bool:
    """Tell whether a run directory is of a run with `attest.mode: off`.

    False where that cannot be known: the base install reads no configuration.
    """
    path = directory / "config.yaml"
    if (directory / "statements" / "genesis.json").exists() or not path.is_file():
        return False
    try:
        from anh_jax.errors import AnhError
        from anh_jax.experiment import load_experiment
    except ImportError:
        return False
    try:
        return load_experiment(path).attest.mode == "off"
    except AnhError:
        return False
