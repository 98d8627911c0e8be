"""The example loop, as its reader would run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_loop.py"


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory, anh_in: Any) -> Any:
    """Return the command line in a folder where the example loop has run and is proven."""
    anh = anh_in(tmp_path_factory.mktemp("example"))
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "own"],
        cwd=anh.folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    proved = anh("prove", "own")
    assert proved.returncode == 0, proved.stderr
    return anh


def test_an_own_loop_is_proven_and_verified(proven: Any) -> None:
    verified = proven("verify", "own/run.proof", "--policy", "own/policy.toml")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("logged (self): integrity, not honesty\n")


def test_an_audit_of_an_own_loop_passes_within_bounds_and_raises_no_level(proven: Any) -> None:
    audited = proven("audit", "own", "--samples", "8", "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    found = json.loads(audited.stdout)
    steps = len(found["steps"])
    assert found["verdict"] == f"passed: {steps} of {steps} steps within bounds"
    assert found["counts"] == {"pass": steps, "unattestable": 0, "withheld": 0, "refuted": 0}
    assert found["method"] == "bounded"
    assert found["client"] == "logged (self): integrity, not honesty"


def test_a_changed_file_fails_the_audit_by_name(proven: Any) -> None:
    # The last step is always among the sampled ones.
    path = proven.folder / "own" / "retained" / "60.safetensors"
    whole = path.read_bytes()
    data = 8 + int.from_bytes(whole[:8], "little")  # a safetensors file begins with its header
    header = json.loads(whole[8:data])
    at = data + header["outputs/gradient/out/bias"]["data_offsets"][0]
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    try:
        audited = proven("audit", "own", "--samples", "1")
    finally:
        path.write_bytes(whole)
    assert audited.returncode == 1
    headline = audited.stdout.splitlines()[0]
    assert headline.startswith("FAILED: 1 of ")
    assert "retained/60.safetensors: its gradient is not the one that step 60 commits" in headline
