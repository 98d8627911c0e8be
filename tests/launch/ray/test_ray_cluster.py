import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch import ray_cluster
from launch.ray_cluster import ClusterError, Environment, RayCluster, worker_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def session_processes(folder: Path) -> list[int]:
    """Return the processes whose command line or environment names a cluster's folder."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if str(folder).encode() in text:
                found.append(int(entry.name))
    return found


def head_process(folder: Path) -> list[int]:
    """Return the cluster's head: one process, for as long as the cluster lives."""
    found: list[int] = []
    for process in session_processes(folder):
        with contextlib.suppress(OSError):
            if b"/gcs_server" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]:
                found.append(process)
    assert len(found) == 1
    return found


def listening_addresses(processes: list[int]) -> set[str]:
    """Return the addresses on which the processes listen, from /proc/net/tcp and tcp6."""
    inodes: set[str] = set()
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):
                target = os.readlink(handle)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found: set[str] = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # 0A: listening
                packed = bytes.fromhex(fields[1].partition(":")[0])
                words = [packed[i : i + 4][::-1] for i in range(0, len(packed), 4)]
                found.add(socket.inet_ntop(family, b"".join(words)))
    return found


@pytest.mark.ray
def test_a_cluster_of_this_host_listens_on_loopback_alone(cluster: RayCluster) -> None:
    assert cluster.folder is not None
    processes = session_processes(cluster.folder)
    assert len(processes) >= 3
    found = listening_addresses([*processes, os.getpid()])
    assert found
    assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert cluster.address.startswith("127.0.0.1:")


@pytest.mark.ray
def test_the_cluster_s_files_and_its_token_are_its_owner_s_alone(cluster: RayCluster) -> None:
    assert cluster.folder is not None
    assert cluster.folder.stat().st_mode & 0o777 == 0o700
    assert Path(cluster.logs).is_dir()
    token = cluster.folder / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(token.read_text())) == 32


_ASK = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_get(b"session_name", b"session", timeout=10))
"""


@pytest.mark.ray
def test_who_has_not_the_token_is_refused(cluster: RayCluster, tmp_path: Path) -> None:
    assert cluster.folder is not None
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    answers = {
        name: subprocess.run(
            [sys.executable, "-c", _ASK, cluster.address],
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for name, path in (("right", cluster.folder / "token"), ("wrong", wrong))
    }
    assert answers["right"].returncode == 0, answers["right"].stderr
    assert answers["wrong"].returncode != 0
    assert "session" not in answers["wrong"].stdout


class Driver:
    """A driver in a process and a process group of its own, as a terminal would start it."""

    def __init__(self, root: Path, wanted: dict[str, Any], temporary: Path, **more: str) -> None:
        self.root = root
        self._errors = (root / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), str(root), json.dumps(wanted)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)} | more,
            start_new_session=True,
        )

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for_steps(self, count: int) -> None:
        path = self.root / "steps" / "1-0.jsonl"
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_text().count("\n") < count:
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.1)

    def errors(self) -> str:
        return (self.root / "stderr").read_text()

    def phases(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.errors().splitlines() if line.startswith("{")]

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self._errors.close()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short folder: pytest's own are too long for Ray's sockets."""
    folder = Path(ray_cluster.tempfile.mkdtemp(prefix="t-"))
    yield folder
    ray_cluster.shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_ctrl_c_twice_ends_at_once_and_leaves_nothing_behind(
    run_directory: Path, temporary: Path
) -> None:
    driver = Driver(run_directory, {"steps": 10, "seconds": 30}, temporary)
    try:
        driver.wait_for_steps(1)
        assert len(session_processes(temporary)) >= 5
        driver.press_ctrl_c()
        while "asked to stop" not in driver.errors():
            time.sleep(0.05)
        driver.press_ctrl_c()
        pressed = time.monotonic()
        output, _ = driver.process.communicate(timeout=60)
        assert time.monotonic() - pressed < 20  # a step takes longer
        assert driver.process.returncode == 130, driver.errors()
        assert output == ""
        assert "anh: stopped" in driver.errors()
        deadline = time.monotonic() + 30
        while session_processes(temporary) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert session_processes(temporary) == []
        assert [path for path in temporary.iterdir() if path.name.startswith("anh-")] == []
    finally:
        driver.close()


@pytest.mark.ray
def test_the_cluster_that_ray_address_names_is_used_and_left_running(
    cluster: RayCluster, run_directory: Path, temporary: Path
) -> None:
    assert cluster.folder is not None
    token = str(cluster.folder / "token")
    before = head_process(cluster.folder)
    driver = Driver(
        run_directory,
        {"steps": 3},
        temporary,
        RAY_ADDRESS=cluster.address,
        RAY_AUTH_TOKEN_PATH=token,
    )
    try:
        output, _ = driver.process.communicate(timeout=240)
        assert driver.process.returncode == 0, driver.errors()
        assert json.loads(output) == {"ending": "finished"}
        assert list(temporary.iterdir()) == []
        assert head_process(cluster.folder) == before
    finally:
        driver.close()


@pytest.mark.parametrize(("platform", "named"), [("cpu", "cpu"), ("gpu", "cuda"), ("tpu", "tpu")])
def test_workers_get_their_platform_a_compile_cache_and_this_process_s_flags(
    monkeypatch: pytest.MonkeyPatch, platform: str, named: str
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_from_here")
    monkeypatch.setenv("JAX_PLATFORMS", "somewhere")
    monkeypatch.setenv("UNRELATED_SECRET", "x")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    found = worker_environment(platform, {"JAX_ENABLE_X64": "1"})
    assert found["JAX_PLATFORMS"] == named
    assert found["XLA_FLAGS"] == "--xla_from_here"
    assert found["JAX_ENABLE_X64"] == "1"
    assert found["JAX_COMPILATION_CACHE_DIR"].endswith("jax")
    assert "UNRELATED_SECRET" not in found
    assert worker_environment(platform, {"XLA_FLAGS": "mine"})["XLA_FLAGS"] == "mine"


def test_an_environment_is_put_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANH_TEST_KEPT", "before")
    monkeypatch.delenv("ANH_TEST_NEW", raising=False)
    with Environment({"ANH_TEST_KEPT": "inside", "ANH_TEST_NEW": "inside"}):
        assert os.environ["ANH_TEST_KEPT"] == os.environ["ANH_TEST_NEW"] == "inside"
    assert os.environ["ANH_TEST_KEPT"] == "before"
    assert "ANH_TEST_NEW" not in os.environ


def test_a_temporary_folder_too_long_for_sockets_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(ray_cluster.tempfile, "tempdir", str(deep))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ClusterError, match="set TMPDIR to a shorter one"),
        ray_cluster.open_cluster(workers=1),
    ):
        pass
    assert list(deep.iterdir()) == []
