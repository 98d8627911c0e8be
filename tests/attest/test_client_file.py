"""The client as one file: the same bytes from the same sources, and PyNaCl is all it asks for."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import nacl
import pytest

from attest.proof import parse_proof
from attest.record_proof import record_proof
from attest.statements import Final

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
POLICY = str(GOLDEN / "policy.toml")


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_client", ROOT / "docs/build_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, builder: ModuleType) -> Path:
    """Return a folder with the file, and beside it PyNaCl without any other package."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "anh-verify.pyz").write_bytes(builder.build())
    packages = Path(nacl.__file__).resolve().parents[1]
    for name in ("nacl", "cffi", "_cffi_backend.*.so", "pycparser"):
        for path in packages.glob(name):
            (folder / path.name).symlink_to(path)
    return folder


def verify(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the file without site packages, so that nothing but the folder and it can be imported."""
    return subprocess.run(
        [sys.executable, "-S", "-B", str(folder / "anh-verify.pyz"), *arguments],
        env={"PYTHONPATH": str(folder), "ANH_HOME": str(folder / "home")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_gives_the_verdict_of_a_run_proof(alone: Path) -> None:
    done = verify(alone, str(GOLDEN / "run.proof"), "--policy", POLICY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("logged (self): integrity, not honesty\n")
    told = verify(alone, str(GOLDEN / "run.proof"), "--policy", POLICY, "--json")
    assert json.loads(told.stdout)["level"] == "logged"


def test_it_refuses_an_altered_proof_in_one_line(alone: Path) -> None:
    data = (GOLDEN / "run.proof").read_bytes().replace(b'"steps":40', b'"steps":41')
    (alone / "altered.proof").write_bytes(data)
    done = verify(alone, "altered.proof", "--policy", POLICY)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1


def test_it_checks_one_record(alone: Path) -> None:
    proof = parse_proof((GOLDEN / "run.proof").read_bytes())
    data = record_proof(proof, proof.of_kind(Final)[0]).to_bytes()
    (alone / "final.tlog-proof").write_bytes(data)
    done = verify(alone, "final.tlog-proof", "--policy", POLICY, "--proof",
                  str(GOLDEN / "run.proof"))  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("final "), done.stderr
    (alone / "moved.tlog-proof").write_bytes(data.replace(b"\nindex 43\n", b"\nindex 42\n"))
    assert verify(alone, "moved.tlog-proof", "--policy", POLICY).returncode == 1


def test_what_cannot_run_is_told_apart(alone: Path) -> None:
    assert verify(alone, "absent", "--policy", POLICY).returncode == 2
    assert verify(alone, str(GOLDEN / "run.proof"), "--policy", "absent").returncode == 2
    assert verify(alone, str(GOLDEN / "run.proof")).returncode == 2


def test_the_same_sources_give_the_same_bytes(builder: ModuleType, tmp_path: Path) -> None:
    first = builder.build()
    for path in builder.modules():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / path).read_bytes())
        os.chmod(target, 0o600)
        os.utime(target, (1, 1))
    (tmp_path / "docs").mkdir()
    copied = tmp_path / "docs" / "build_client.py"
    copied.write_bytes((ROOT / "docs/build_client.py").read_bytes())
    command = [sys.executable, str(copied), str(tmp_path / "out.pyz")]
    elsewhere = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, cwd="/", capture_output=True, env=elsewhere)
    assert (tmp_path / "out.pyz").read_bytes() == first


def test_it_holds_the_client_and_nothing_that_writes_or_serves(builder: ModuleType) -> None:
    with zipfile.ZipFile(io.BytesIO(builder.build())) as archive:
        names = set(archive.namelist())
    assert {"__main__.py", "attest/client.py", "attest/record_proof.py"} <= names
    assert not [name for name in names if name.startswith(("attest/log/", "launch/", "anh_jax/"))]
