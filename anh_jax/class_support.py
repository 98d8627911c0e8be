"""Which numerics classes a backend can run; the others are refused by name, never run as another.

Measured with jax 0.10 and 0.12: on a CPU the TF32 preset raises when it is compiled, and bf16x3 is
silently float32. The interpreter can emulate both there (`bounds/emulation.py`), for tests.
"""

from anh_jax.errors import ConfigError
from attest.numerics_class import CLASSES

# The presets of XLA:GPU need tensor cores, XLA:TPU has no TF32.
_RUNS = {
    "cpu": ("f32", "bf16_f32acc", "bf16"),
    "gpu": tuple(CLASSES),
    "tpu": ("f32", "bf16x3", "bf16_f32acc", "bf16"),
}


def runnable_classes(backend: str) -> tuple[str, ...]:
    """Return the classes that a jax backend computes as they are defined."""
    return _RUNS.get(backend, _RUNS["cpu"])


def check_runnable(numerics_class: str, backend: str) -> None:
    """Refuse a class that a backend would run as another one, or not at all.

    Raises:
        ConfigError: names the class, the backend, and what would do.
    """
    known = runnable_classes(backend)
    if numerics_class in known:
        return
    able = [name for name, classes in _RUNS.items() if numerics_class in classes]
    elsewhere = f"run it on a {' or '.join(able)} backend, or " if able else ""
    raise ConfigError(
        f"numerics.class: {numerics_class} cannot be run by the {backend} backend;"
        f" {elsewhere}choose one of {', '.join(known)} for a new contract"
    )
