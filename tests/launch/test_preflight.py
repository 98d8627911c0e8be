"""Each thing that would stop a run is found, with its fix."""

import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from launch import accelerators, preflight
from launch.accelerators import Accelerator, Seen
from launch.cli import run
from launch.preflight import Finding, Status

GPU = Accelerator("NVIDIA GPU", "/dev/nvidia0", "cuda")
GOOD_PAIR = {"jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}


def no_accelerator() -> None:
    return None


@pytest.mark.parametrize(
    "version, status",
    [
        ((3, 10), Status.STOP),
        ((3, 11), Status.GOOD),
        ((3, 13), Status.GOOD),
        ((3, 14), Status.STOP),
    ],
)
def test_python_outside_the_supported_range_stops(version: tuple[int, int], status: Status) -> None:
    assert preflight.python_version(version).status is status


@pytest.mark.parametrize(
    "changes, status, fix",
    [
        ({}, Status.GOOD, ""),
        ({"jax": None}, Status.STOP, "pip install 'anh-jax[train]'"),
        ({"jaxlib": "0.10.1"}, Status.STOP, "pip install jaxlib==0.10.2"),
        ({"flax": "0.12.12"}, Status.WARN, "pip install flax==0.12.8"),
        ({"jax": "0.11.0"}, Status.WARN, "pip install 'anh-jax[train]'"),
    ],
)
def test_package_sets_are_the_tested_ones(
    changes: dict[str, str | None], status: Status, fix: str
) -> None:
    found = preflight.packages(lambda name: (GOOD_PAIR | changes)[name])
    assert found.status is status
    assert found.fix.startswith(fix)


def test_pinned_pairs_are_those_of_this_environment() -> None:
    assert preflight.packages().status is Status.GOOD


def test_devices_that_jax_sees_are_named() -> None:
    found = preflight.devices(lambda: Seen("gpu", 2, "NVIDIA H100"), lambda: GPU)
    classes = "numerics classes f32, tf32, bf16x3, bf16_f32acc, bf16"
    assert found == Finding("devices", Status.GOOD, f"2 x NVIDIA H100 (gpu); {classes}")


def test_gpu_that_jax_does_not_see_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = preflight.devices(lambda: Seen("cpu", 1, "cpu"), lambda: GPU)
    assert found.status is Status.WARN
    assert "/dev/nvidia0" in found.detail
    assert found.fix == "pip install 'anh-jax[cuda]'"


def test_platforms_variable_is_the_fix_where_it_hides_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found = preflight.devices(lambda: Seen("cpu", 1, "cpu"), lambda: GPU)
    assert found.fix.startswith("unset JAX_PLATFORMS")


def test_busy_device_is_told_from_a_missing_one() -> None:
    busy = preflight.devices(lambda: Seen(failure="Device or resource busy"), no_accelerator)
    assert busy.status is Status.STOP and "end the process" in busy.fix
    absent = preflight.devices(lambda: Seen(failure="No module named 'jax'"), no_accelerator)
    assert "anh-jax[train]" in absent.fix


@pytest.mark.parametrize(
    "files, kind",
    [
        (["dev/nvidia0"], "NVIDIA GPU"),
        (["dev/nvidiactl"], None),
        (["dev/accel0"], "TPU"),
        (["dev/accel/accel0"], "TPU"),
        (["dev/vfio/0"], "TPU"),
        ([], None),
    ],
)
def test_accelerators_are_recognised_by_their_device_files(
    files: list[str], kind: str | None, tmp_path: Path
) -> None:
    vendor = tmp_path / "sys/bus/pci/devices/0000:00:04.0/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x1ae0\n" if "dev/vfio/0" in files else "0x8086\n")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = accelerators.present(tmp_path)
    assert (None if found is None else found.kind) == kind


def test_child_process_reports_what_jax_sees() -> None:
    assert accelerators.seen_by_jax().backend == "cpu"


def test_child_that_fails_gives_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "_PROBE", "raise RuntimeError('no TPU here')")
    assert accelerators.seen_by_jax().failure == "RuntimeError: no TPU here"
    monkeypatch.setattr(accelerators, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(accelerators, "PROBE_SECONDS", 0.2)
    assert "did not answer" in accelerators.seen_by_jax().failure


def test_folder_that_cannot_be_written_stops(tmp_path: Path) -> None:
    assert preflight.writing(tmp_path / "runs" / "new").status in (Status.GOOD, Status.WARN)
    assert list(tmp_path.iterdir()) == []
    assert preflight.writing(Path("/proc/none/runs")).status is Status.STOP


@pytest.mark.parametrize(
    "free, status",
    [(1 << 29, Status.STOP), (5 << 30, Status.WARN), (50 << 30, Status.GOOD)],
)
def test_little_disk_is_found(free: int, status: Status, tmp_path: Path) -> None:
    assert preflight.disk_space(tmp_path / "runs", lambda path: free).status is status


def test_missing_shared_memory_is_no_finding(tmp_path: Path) -> None:
    assert preflight.shared_memory(tmp_path / "none").status is Status.GOOD


def test_port_in_use_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = preflight.ports({port: "Ray's head node"})
    assert found.status is Status.WARN
    assert f"{port} (Ray's head node)" in found.detail
    assert preflight.ports({port: "Ray's head node"}).status is Status.GOOD


def test_stale_tpu_lock_is_told_from_one_that_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "libtpu_lockfile"
    assert preflight.libtpu_lock(lock).status is Status.GOOD
    lock.touch()
    tpu = Accelerator("TPU", "/dev/accel0", "tpu")
    for present, status in ((tpu, Status.STOP), (None, Status.WARN)):
        assert preflight.libtpu_lock(lock, present=lambda found=present: found) == Finding(
            "libtpu lock", status, f"{lock} is stale: nobody holds it", f"rm {lock}"
        )
    table = tmp_path / "locks"
    table.write_text(f"1: FLOCK  ADVISORY  WRITE 4711 08:01:{lock.stat().st_ino} 0 EOF\n")
    held = preflight.libtpu_lock(lock, table)
    assert held.status is Status.WARN and "4711" in held.fix


def test_lock_table_of_this_system_names_the_holder(tmp_path: Path) -> None:
    lock = tmp_path / "libtpu_lockfile"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if str(lock.stat().st_ino) not in Path("/proc/locks").read_text():
            pytest.skip("this kernel's /proc/locks does not show the lock")
        assert str(os.getpid()) in preflight.libtpu_lock(lock).detail


@pytest.mark.parametrize(
    "lines, variable, status",
    [
        ([["bash"]], None, Status.GOOD),
        ([["bash"], ["/usr/bin/uv", "run", "anh"]], None, Status.WARN),
        ([["uv", "run", "anh"]], "0", Status.GOOD),
        ([["uv", "run", "anh"]], "1", Status.WARN),
        ([["uv", "pip"]], None, Status.GOOD),
        ([[]], None, Status.GOOD),
    ],
)
def test_uv_run_above_ray_is_found(
    lines: list[list[str]],
    variable: str | None,
    status: Status,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", variable)
    assert preflight.uv_run(lambda: iter(lines)).status is status


def test_ancestors_end_before_the_first_process() -> None:
    assert preflight.uv_run().name == "uv and ray"


def found_by_doctor(monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    finding = Finding("disk", status, "1 GiB free", "" if status is Status.GOOD else "free space")
    monkeypatch.setattr(preflight, "findings", lambda folder: iter([finding]))


@pytest.mark.parametrize(
    "status, code", [(Status.GOOD, 0), (Status.WARN, 0), (Status.STOP, 1)], ids=str
)
def test_doctor_fails_only_on_what_stops_a_run(
    status: Status,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found_by_doctor(monkeypatch, status)
    assert run(["doctor"]) == code
    shown = capsys.readouterr().out
    assert "1 GiB free" in shown
    assert ("1 of 1 needs attention" in shown) is (status is not Status.GOOD)
    assert ("fix: free space" in shown) is (status is not Status.GOOD)
    assert run(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["findings"][0]["status"] == status.value


def test_every_finding_has_a_fix_unless_all_is_well(tmp_path: Path) -> None:
    for finding in preflight.findings(tmp_path):
        assert finding.detail
        assert bool(finding.fix) is (finding.status is not Status.GOOD)
