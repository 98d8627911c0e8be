"""What would stop a run on this host, found before step 0, each with its fix.

Nothing here changes the host except one small file, written and removed, where the run would go.
"""

import enum
import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anh_jax.class_support import runnable_classes
from launch import accelerators


class Status(enum.Enum):
    """How bad a finding is: `stop` ends a run or ruins it, `warn` slows or surprises it."""

    GOOD = "ok"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing; `fix` is a command or a sentence, empty where all is well."""

    name: str
    status: Status
    detail: str
    fix: str = ""


OLDEST_PYTHON, FIRST_UNSUPPORTED_PYTHON = (3, 11), (3, 14)
# jax, jaxlib and flax move together: a jax release has broken every older flax before.
PAIRS = {
    "0.10.2": {"jaxlib": "0.10.2", "flax": "0.12.8"},
    "0.12.0.1": {"jaxlib": "0.12.0.1", "flax": "0.12.12"},
}
STOP_BYTES, WARN_BYTES = 1 << 30, 10 << 30
SLOW_SYNC_SECONDS = 0.05
PORTS = {6379: "Ray's head node", 8265: "Ray's dashboard"}
LIBTPU_LOCK = Path("/tmp/libtpu_lockfile")


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Check that this Python is one the pinned packages have wheels for."""
    text = ".".join(map(str, version))
    if OLDEST_PYTHON <= version < FIRST_UNSUPPORTED_PYTHON:
        return Finding("python", Status.GOOD, text)
    return Finding("python", Status.STOP, f"{text} is not 3.11 to 3.13", "uv venv --python 3.11")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages(installed: Callable[[str], str | None] = _installed) -> Finding:
    """Check that jax, jaxlib and flax are installed as one of the tested pairs."""
    found = {name: installed(name) for name in ("jax", "jaxlib", "flax")}
    text = ", ".join(f"{name} {version or 'absent'}" for name, version in found.items())
    if None in found.values():
        return Finding("packages", Status.STOP, text, "pip install 'anh-jax[train]'")
    pair = PAIRS.get(str(found["jax"]))
    if pair is None:
        fix = f"pip install 'anh-jax[train]' (tested: jax {' and '.join(PAIRS)})"
        return Finding("packages", Status.WARN, f"{text}: not a tested set", fix)
    wrong = [name for name, version in pair.items() if found[name] != version]
    if wrong:
        fix = "pip install " + " ".join(f"{name}=={pair[name]}" for name in wrong)
        status = Status.STOP if "jaxlib" in wrong else Status.WARN
        return Finding("packages", status, f"{text}: they do not belong together", fix)
    return Finding("packages", Status.GOOD, text)


def devices(
    probe: Callable[[], accelerators.Seen] = accelerators.seen_by_jax,
    present: Callable[[], accelerators.Accelerator | None] = accelerators.present,
) -> Finding:
    """Check that JAX sees the accelerator that the host shows."""
    seen = probe()
    if seen.failure:
        fix = "pip install 'anh-jax[train]'"
        if "lockfile" in seen.failure or "busy" in seen.failure:
            fix = "end the process that holds the device"
        return Finding("devices", Status.STOP, f"jax found none: {seen.failure}", fix)
    warning = accelerators.mismatch(present(), seen.backend)
    if warning is not None:
        detail, _, fix = warning.partition("; fix: ")
        return Finding("devices", Status.WARN, detail, fix)
    classes = ", ".join(runnable_classes(seen.backend))
    detail = f"{seen.count} x {seen.kind} ({seen.backend}); numerics classes {classes}"
    return Finding("devices", Status.GOOD, detail)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def writing(folder: Path) -> Finding:
    """Check that a run below `folder` can be written, and how long one durable write takes.

    A step counts as kept once its row is synced, so a slow disk slows the steps that wait for it.
    """
    place = _existing(folder.absolute())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".anh-doctor-") as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            start = time.monotonic()
            os.fsync(stream.fileno())
            seconds = time.monotonic() - start
    except OSError as error:
        fix = f"chown or chmod {place}, or name another --run-dir"
        return Finding("writing", Status.STOP, f"{place}: {error.strerror}", fix)
    detail = f"{place}: one durable write takes {seconds * 1e3:.1f} ms"
    if seconds > SLOW_SYNC_SECONDS:
        return Finding("writing", Status.WARN, detail, "put the run directory on a local disk")
    return Finding("writing", Status.GOOD, detail)


def disk_space(
    folder: Path, free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> Finding:
    """Check the free space where the run would go."""
    place = _existing(folder.absolute())
    count = free(place)
    detail = f"{place}: {count / 2**30:.1f} GiB free"
    fix = f"free space on {place} or name another --run-dir"
    if count < STOP_BYTES:
        return Finding("disk", Status.STOP, detail, fix)
    if count < WARN_BYTES:
        return Finding("disk", Status.WARN, f"{detail}, little for training checkpoints", fix)
    return Finding("disk", Status.GOOD, detail)


def shared_memory(place: Path = Path("/dev/shm")) -> Finding:
    """Check /dev/shm: Ray's object store and NCCL live there, and containers get 64 MiB of it."""
    if not place.is_dir():
        return Finding("shared memory", Status.GOOD, f"{place}: none on this system")
    size = shutil.disk_usage(place).total
    detail = f"{place}: {size / 2**30:.1f} GiB"
    if size < 1 << 30:
        fix = "start the container with --shm-size=8g"
        return Finding("shared memory", Status.WARN, f"{detail}, too little for Ray", fix)
    return Finding("shared memory", Status.GOOD, detail)


def ports(wanted: dict[int, str] | None = None) -> Finding:
    """Check that nothing listens where Ray would start its head node."""
    wanted = PORTS if wanted is None else wanted
    taken: list[str] = []
    for port, owner in wanted.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(f"{port} ({owner})")
    if not taken:
        return Finding("ports", Status.GOOD, f"free: {', '.join(map(str, wanted))}")
    fix = "if that is not your Ray cluster, end what listens there (ss -ltnp shows it)"
    return Finding("ports", Status.WARN, f"in use: {', '.join(taken)}", fix)


def libtpu_lock(
    lock: Path = LIBTPU_LOCK,
    locks: Path = Path("/proc/locks"),
    present: Callable[[], accelerators.Accelerator | None] = accelerators.present,
) -> Finding:
    """Check for the lock file that a killed TPU process leaves behind; it stops TPUs alone."""
    try:
        inode = lock.stat().st_ino
    except FileNotFoundError:
        return Finding("libtpu lock", Status.GOOD, "no lock file")
    owner = _lock_owner(locks, inode)
    if owner is not None:
        detail = f"{lock} is held by process {owner}"
        return Finding("libtpu lock", Status.WARN, detail, f"wait for process {owner} or end it")
    accelerator = present()
    stops = accelerator is not None and accelerator.kind == "TPU"
    status = Status.STOP if stops else Status.WARN
    return Finding("libtpu lock", status, f"{lock} is stale: nobody holds it", f"rm {lock}")


def _lock_owner(locks: Path, inode: int) -> str | None:
    # proc(5): number, class, mode, type, process, major:minor:inode, start, end
    try:
        lines = locks.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[5].rpartition(":")[2] == str(inode):
            return fields[4]
    return None


def uv_run(command_lines: Callable[[], Iterator[list[str]]] | None = None) -> Finding:
    """Check whether Ray would rebuild the environment because `uv run` started this process.

    Ray looks for a `uv run` among its driver's ancestors and then gives every worker a fresh
    environment and a copy of the folder; a local cluster of ours switches that off by itself.
    """
    found = command_lines() if command_lines is not None else _ancestors()
    under_uv = any(line[1:2] == ["run"] and Path(line[0]).name == "uv" for line in found if line)
    switch = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
    if not under_uv:
        return Finding("uv and ray", Status.GOOD, "not started by uv run")
    if os.environ.get(switch, "").lower() in ("0", "false"):
        return Finding("uv and ray", Status.GOOD, f"started by uv run, {switch} is off")
    detail = "started by uv run: a Ray cluster that is not ours would rebuild every worker"
    return Finding("uv and ray", Status.WARN, detail, f"export {switch}=0")


def _ancestors(proc: Path = Path("/proc")) -> Iterator[list[str]]:
    process = os.getppid()
    while process > 1:
        try:
            line = (proc / str(process) / "cmdline").read_bytes()
            status = (proc / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        yield [part.decode(errors="replace") for part in line.split(b"\0") if part]
        # The name, in parentheses, may hold spaces; the parent is the second field after it.
        process = int(status.rpartition(")")[2].split()[1])


def findings(folder: Path) -> Iterator[Finding]:
    """Yield every finding for a run that would be written below `folder`, cheap ones first."""
    yield python_version()
    yield packages()
    yield writing(folder)
    yield disk_space(folder)
    yield shared_memory()
    yield ports()
    yield libtpu_lock()
    yield uv_run()
    if _installed("jax") is not None:
        yield devices()
