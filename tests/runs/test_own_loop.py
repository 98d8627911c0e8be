"""The example loop, as its reader would run it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_loop.py"


def test_an_own_loop_is_proven_and_verified(anh: Any) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "own"],
        cwd=anh.folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    proved = anh("prove", "own")
    assert proved.returncode == 0, proved.stderr
    verified = anh("verify", "own/run.proof", "--policy", "own/policy.toml")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("logged (self): integrity, not honesty\n")
