"""What a step was computed on: the execution class and the versions that genesis names.

Two executors whose execution classes are equal, and who both repeat a step bit for bit, may be
compared exactly; any other pair is compared within a tolerance (docs/numerics.md).
"""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax

from anh_jax.errors import AnhError

# The instruction sets that change which kernels XLA:CPU picks, hence which roundings happen.
_ISA_FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16")
_ISA_FEATURES_ARM = ("asimd", "sve", "sve2", "bf16", "i8mm")
_VENDOR_PACKAGES = ("nvidia-", "jax-cuda", "libtpu")
_LONGEST_FLAG = 80
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "anh-jax")


def execution_class(mesh: Mapping[str, int], *, processes: int) -> dict[str, str]:
    """Describe what decides the bits of a step on this host, beyond the program itself.

    `mesh` gives the size of each axis and `processes` how many processes form it. Values are
    strings. The class is a claim by its executor: only equal replays make it an exact one.
    """
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "deviceKind": device.device_kind,
        "isa": _isa(),
        "threads": str(_threads()),
        "jaxlib": importlib.metadata.version("jaxlib"),
        "jaxlibFiles": _distribution_digest("jaxlib"),
        "accelerator": _accelerator_packages(),
        "cpu": cpu_model(),
        "driver": _driver(),
        "flags": _flags(),
        "mesh": ",".join(f"{axis}={size}" for axis, size in sorted(mesh.items())),
        "processes": str(processes),
    }


def environment() -> dict[str, str]:
    """Return the versions of what ran: Python, the packages and the operating system."""
    found: dict[str, str] = {"python": platform.python_version(), "system": platform.system()}
    found["machine"] = platform.machine()
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _threads() -> int:
    # XLA:CPU sizes its pool like this, and how it splits a sum follows the pool (measured: NPROC=4,
    # or 8 virtual devices on 2 cores, change the bits of a gradient).
    reserved = os.environ.get("NPROC", "")
    pool = int(reserved) if reserved.isdecimal() and int(reserved) else None
    pool = pool or len(os.sched_getaffinity(0))
    return max(pool, jax.local_device_count()) if jax.default_backend() == "cpu" else pool


def cpu_model() -> str:
    """Return the name of this host's processor, or its architecture where none is told."""
    # Kernels block long sums by cache size, which the model stands for.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()[:100] or platform.machine()
    return platform.machine()


def _isa() -> str:
    wanted = set(_ISA_FEATURES) | set(_ISA_FEATURES_ARM)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return " ".join(sorted(wanted & set(value.split()))) or platform.machine()
    return platform.machine()


def _distribution_digest(package: str) -> str:
    # RECORD lists the SHA-256 of every installed file, so its own digest stands for all of them
    # without reading hundreds of megabytes of shared objects at every start.
    record = importlib.metadata.distribution(package).read_text("RECORD")
    return "absent" if record is None else hashlib.sha256(record.encode()).hexdigest()


def _accelerator_packages() -> str:
    """Return one digest over the plugin and vendor libraries that are installed, or none."""
    names = sorted(
        {
            str(found.metadata["Name"]).lower()
            for found in importlib.metadata.distributions()
            if str(found.metadata["Name"]).lower().startswith(_VENDOR_PACKAGES)
        }
    )
    if not names:
        return "none"
    lines = "".join(f"{name} {_distribution_digest(name)}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "none"
    return text.splitlines()[0].strip()


def _flags() -> str:
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        # XLA reads flags from a file that is named instead of them.
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise AnhError(
                f"XLA_FLAGS: {text} cannot be read ({error.strerror}); name a readable file"
            ) from error
    return " ".join(sorted(_named_flag(flag) for flag in text.split())) or "none"


def _named_flag(flag: str) -> str:
    """Return a flag as it is, or the digest of a value that is a path on this machine.

    What lies at the path may decide bits (autotuning results), and its name would leak a folder.
    """
    name, _, value = flag.partition("=")
    if "/" not in value:
        return flag if len(flag) <= _LONGEST_FLAG and flag.isascii() else _digested(name, flag)
    path = Path(value)
    data = path.read_bytes() if path.is_file() else value.encode()
    return f"{name}=sha256:{hashlib.sha256(data).hexdigest()[:16]}"


def _digested(name: str, flag: str) -> str:
    return f"{name[:40]}=sha256:{hashlib.sha256(flag.encode()).hexdigest()[:16]}"
