"""Which accelerators this host has, and which devices JAX sees, without loading JAX here.

Loading JAX takes the TPU and most of a GPU's memory, so a child process asks and goes away.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 120
_GOOGLE_PCI_VENDOR = "0x1ae0"
_PROBE = """
import json, jax
devices = jax.devices()
print(json.dumps({
    "backend": jax.default_backend(),
    "count": len(devices),
    "kind": devices[0].device_kind,
}))
"""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A kind of device that the operating system shows."""

    kind: str
    evidence: str
    extra: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What JAX answers: its backend, its devices, or why it gave none."""

    backend: str = ""
    count: int = 0
    kind: str = ""
    failure: str = ""


def present(root: Path = Path("/")) -> Accelerator | None:
    """Return the accelerator that this host shows, or None; `root` is where /dev and /sys lie."""
    nvidia = sorted((root / "dev").glob("nvidia[0-9]*"))
    if nvidia:
        return Accelerator("NVIDIA GPU", f"/dev/{nvidia[0].name}", "cuda")
    accel = sorted((root / "dev").glob("accel[0-9]*")) + sorted(
        (root / "dev" / "accel").glob("accel[0-9]*")
    )
    if accel:
        return Accelerator("TPU", f"/{accel[0].relative_to(root)}", "tpu")
    # Newer TPU hosts hand the chips out through vfio; the vendor number tells whose they are.
    for vendor in sorted((root / "sys/bus/pci/devices").glob("*/vendor")):
        try:
            is_google = vendor.read_text(encoding="ascii").strip() == _GOOGLE_PCI_VENDOR
        except (OSError, UnicodeDecodeError):
            continue
        if is_google and any((root / "dev/vfio").glob("[0-9]*")):
            return Accelerator("TPU", f"PCI device {vendor.parent.name}", "tpu")
    return None


def seen_by_jax() -> Seen:
    """Ask a child process for JAX's devices; a failure is returned as its last line."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired:
        return Seen(failure=f"jax did not answer within {PROBE_SECONDS} s")
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return Seen(failure=lines[-1] if lines else f"jax ended with status {child.returncode}")
    answer = json.loads(child.stdout.strip().splitlines()[-1])
    return Seen(backend=answer["backend"], count=answer["count"], kind=answer["kind"])


def mismatch(accelerator: Accelerator | None, backend: str) -> str | None:
    """Return one line where an accelerator is there and JAX computes on the CPU, else None.

    `backend` is `jax.default_backend()`. `anh train` prints this before its first step.
    """
    if accelerator is None or backend != "cpu":
        return None
    platforms = os.environ.get("JAX_PLATFORMS", "")
    fix = (
        f"unset JAX_PLATFORMS (it is {platforms!r})"
        if "cpu" in platforms.split(",")
        else f"pip install 'anh-jax[{accelerator.extra}]'"
    )
    return (
        f"{accelerator.kind} present ({accelerator.evidence}) but jax sees only the CPU; fix: {fix}"
    )
