"""A log served by a Ray actor: found by name, started again where it was killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from attest.envelope import Envelope, sign
from attest.errors import AttestError
from attest.keys import PrivateKey
from attest.log.fsck import fsck
from attest.log.remote import RemoteLog
from attest.statements import Held, encode_statement
from launch.errors import CommandError
from launch.log_actor import log_actor, serve_in_actor, serve_in_cluster
from launch.log_serving import Pace, make_log

PACE = Pace(0.1, key_rate=2000, address_rate=10_000)
KEY = PrivateKey(bytes(range(32)))


def record(number: int) -> Envelope:
    held = Held("state", f"{number:064x}", "holder.example", "2030-01-01T00:00:00Z")
    return sign(encode_statement(held), [KEY])


def insist(log: RemoteLog, envelope: Envelope) -> int:
    for _ in range(200):
        try:
            return log.append([envelope], keys=[KEY.public])[0]
        except AttestError:
            time.sleep(0.1)
    raise AssertionError("the log did not come back")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_log_in_an_actor_is_found_by_name_and_loses_nothing_when_it_is_killed(
    cluster: object, tmp_path: Path
):
    """In the cluster of all tests: Ray keeps the first token that a process has used."""
    import ray

    folder = tmp_path / "log"
    make_log(folder, "log.example/actor")
    with pytest.raises(CommandError, match="no log actor"):
        log_actor("runs")
    url = serve_in_actor(folder / "log", "runs", PACE, _free_port())
    actor: Any = log_actor("runs")
    try:
        assert serve_in_actor(folder / "log", "runs", PACE, 0) == url
        with RemoteLog(url, tmp_path / "remote") as log:
            known = {index: insist(log, record(index)) for index in range(5)}
            os.kill(ray.get(actor.process.remote()), signal.SIGKILL)
            assert insist(log, record(5)) == 5
            assert {index: insist(log, record(index)) for index in range(5)} == known
        assert ray.get(actor.url.remote()) == url
        with pytest.raises(CommandError, match="is not served"):
            serve_in_actor(folder / "log", "another", PACE, 0)
    finally:
        ray.kill(actor)
    assert fsck(folder / "log").size == 6


def test_actor_is_not_started_in_a_cluster_that_would_end_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(CommandError, match="RAY_ADDRESS names no cluster"):
        serve_in_cluster(tmp_path, "runs", 8470)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
