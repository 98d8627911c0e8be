"""A run whose log somebody else serves: that log may be away while the run trains."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anh_jax.run_directory import RunDirectory
from attest.log.http_reader import HttpReader


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(anh: Any, log: Path, port: int) -> Iterator[dict[str, Any]]:
    process = anh.start("log", "serve", str(log), "--port", str(port), "--json")
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


def test_run_trains_while_its_log_is_away_and_is_proven_and_audited_when_it_is_back(
    config: Path, anh: Any
) -> None:
    assert anh("log", "init", "log", "--origin", "log.example/runs").returncode == 0
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    trained = anh("train", str(config), f"attest.log={url}", "--run-dir", "run")
    assert trained.returncode == 2, trained.stderr
    assert "anh prove run" in trained.stdout
    run = RunDirectory.open(anh.folder / "run")
    assert run.has_statement("final")
    assert not (run.root / "run.proof").exists()

    with serving(anh, anh.folder / "log", port) as told:
        assert told["url"] == url
        proven = anh("prove", "run")
        assert proven.returncode == 0, proven.stderr
        audited = anh("audit", "run", "--samples", "2")
        assert audited.returncode == 0, audited.stderr
        watched = anh("monitor", url, "--once", "--key", new_key(anh, "eye"), "--operator", "eye")
        assert watched.returncode == 0, watched.stderr
        assert anh("prove", "run").returncode == 0
        (listed,) = json.loads(HttpReader(url).get("/runs?state=ended").data)["runs"]
        assert (listed["rows"], listed["attempts"]) == (24, 1)

    policy = (run.root / "policy.toml").read_text()
    assert told["log"] in policy
    verified = anh("verify", "run/run.proof", "--policy", "run/policy.toml", "--json")
    assert verified.returncode == 0, verified.stderr
    verdict = json.loads(verified.stdout)
    assert (verdict["level"], verdict["steps"]) == ("logged", 24)
    assert [audit["passed"] for audit in verdict["audits"]]
    assert anh("log", "fsck", "log").returncode == 0


def new_key(anh: Any, name: str) -> str:
    from attest.keys import PrivateKey

    PrivateKey.generate().save(anh.folder / name)
    return str(anh.folder / name)
