"""What is refused before `anh train` writes anything."""

import math
import os

import msgspec

from anh_jax.class_support import check_runnable
from anh_jax.errors import ConfigError
from anh_jax.experiment import Experiment


def check_start(experiment: Experiment, runner: str) -> None:
    """Refuse what no training step of ours can run here: plan, devices, numerics class.

    Raises:
        ConfigError: naming the key and what to do.
    """
    if experiment.plan.kind == "native":
        raise ConfigError(
            "plan.kind: native is for a loop of your own (docs/own_loop.md); run its file, as in "
            "python examples/own_loop.py"
        )
    sizes: dict[str, int] = msgspec.structs.asdict(experiment.mesh)
    if runner == "local":
        import jax

        from anh_jax.training.mesh import make_mesh

        make_mesh(**sizes)
        check_runnable(experiment.numerics.class_, jax.default_backend())
    elif _on_cpus():
        check_runnable(experiment.numerics.class_, "cpu")
    if runner != "local" and _one_device_a_worker():
        _check_workers(math.prod(sizes.values()), experiment.runner.workers)


def _one_device_a_worker() -> bool:
    # What a worker on another kind of host will see, this process cannot know.
    return _on_cpus() and not ("JAX_NUM_CPU_DEVICES" in os.environ or "XLA_FLAGS" in os.environ)


def _on_cpus() -> bool:
    return os.environ.get("JAX_PLATFORMS", "").partition(",")[0] == "cpu"


def _check_workers(devices: int, workers: int) -> None:
    if devices != workers:
        raise ConfigError(
            f"mesh: it needs {devices} devices, and {workers} workers on CPUs have one each; use "
            f"--workers {devices}, or change mesh.data, mesh.fsdp or mesh.tensor"
        )
