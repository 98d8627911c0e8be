"""Puts what the full checks said into one file: `collect.py OUTPUT PYTEST_LOG BENCH_LOG...`.

Each benchmark's log ends with its line of JSON; pytest's log with its summary line. Beside them
stands what they ran on, without which no figure means anything.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_SPIN = """
import time
end = time.monotonic() + 2
while time.monotonic() < end: pass
"""


def main() -> None:
    output, tests, *benches = map(Path, sys.argv[1:])
    document = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
        "jaxlib": importlib.metadata.version("jaxlib"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "cores_worth": round(_cores_worth(), 2),
        "load": os.getloadavg(),
        "tests": _last_line(tests).strip("= "),
        "benches": {path.stem: _figures(path) for path in benches},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _figures(path: Path) -> dict[str, Any]:
    line = _last_line(path)
    if not line.startswith("{"):
        return {"failed": line[:200]}
    return json.loads(line)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[-1] if lines else ""


def _commit() -> str:
    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return found.stdout.strip()

    changed = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "HEAD") or "unknown") + changed


def _cores_worth() -> float:
    """Return the CPU seconds a second that a process for each core gets together, right now.

    Where machines are shared it can be far less than the number of cores.
    """
    count = os.cpu_count() or 1
    spinners = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]
    before = time.perf_counter()
    used = 0.0
    for spinner in spinners:
        _, _, usage = os.wait4(spinner.pid, 0)
        used += usage.ru_utime + usage.ru_stime
    return used / (time.perf_counter() - before)


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
