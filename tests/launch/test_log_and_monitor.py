"""`anh log fsck` and `anh monitor` on a run's own log."""

import dataclasses
import json
from pathlib import Path

import pytest

from attest.assembly import assemble
from attest.errors import EquivocationError
from attest.log.sequencer import LocalLog
from attest.one_story import TwoStories
from attest.proof import encode_proof
from attest.statements import Status, decode_statement
from launch import status_log
from launch.cli import run
from launch.commands import monitor as monitor_command


def newest(made) -> Status:
    with LocalLog.open(made.root / "log") as log:
        said = decode_statement(log.entry(log.size - 1).payload)
    assert isinstance(said, Status)
    return said


@pytest.mark.parametrize("name", [".", "log"])
def test_sound_log_passes(name: str, proven, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "fsck", str(proven.root / name)]) == 0
    assert "sound" in capsys.readouterr().out
    assert run(["log", "fsck", str(proven.root / name), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["size"] == found["signedSize"] == len(proven.envelopes)
    assert found["records"]["step"] == 12


def test_damaged_log_fails_in_one_line(proven, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle,) = [p for p in (proven.root / "log" / "tile" / "entries").rglob("*") if p.is_file()]
    data = bytearray(bundle.read_bytes())
    data[200] ^= 1
    bundle.write_bytes(bytes(data))
    assert run(["log", "fsck", str(proven.root)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_monitor_appends_the_run_s_own_status(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(proven.envelopes)
    assert run(["monitor", str(proven.root), "--once", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["statuses"]
    assert (found["size"], found["index"], found["runs"]) == (before, before, 1)
    said = newest(proven)
    assert said.monitor == "lab" and said.runs[0].run == proven.run_id
    assert run(["log", "fsck", str(proven.root)]) == 0


def test_foreign_monitor_signs_in_its_own_name(proven, key_home: Path) -> None:
    run(["key", "new", "watch"])
    arguments = ["--once", "--key", "watch", "--operator", "watch.example"]
    assert run(["monitor", str(proven.root), *arguments]) == 0
    assert newest(proven).monitor == "watch.example"


def test_status_of_a_named_monitor_checks_omissions(
    proven, key_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["key", "new", "watch"])
    run(["monitor", str(proven.root), "--once", "--key", "watch", "--operator", "watch.example"])
    with LocalLog.open(proven.root / "log") as log:
        proof = assemble(log, proven.run_id, log.published())
    (proven.root / "run.proof").write_bytes(encode_proof(proof))
    mine = tmp_path / "mine.toml"
    like = str(proven.root / "policy.toml")
    assert (
        run(["policy", "new", str(mine), "--like", like, "--monitor", "watch=watch.example"]) == 0
    )
    capsys.readouterr()
    assert run(["verify", str(proven.root / "run.proof"), "--policy", str(mine)]) == 0
    assert "no status by a monitor" not in capsys.readouterr().out


def test_key_without_operator_is_refused(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["key", "new", "watch"])
    assert run(["monitor", str(proven.root), "--once", "--key", "watch"]) == 2
    assert "--operator" in capsys.readouterr().err


def test_bare_log_gets_a_status_for_each_contract(
    proven, key_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["key", "new", "watch"])
    bare = tmp_path / "bare" / "log"
    bare.parent.mkdir()
    (proven.root / "log").rename(bare)
    arguments = ["--once", "--key", "watch", "--operator", "watch.example", "--json"]
    capsys.readouterr()
    assert run(["monitor", str(bare), *arguments]) == 0
    (found,) = json.loads(capsys.readouterr().out)["statuses"]
    assert found["contract"] == proven.contract().id


def test_run_that_told_two_stories_is_named_and_a_status_signed_all_the_same(
    proven, key_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = status_log.watch
    lie = TwoStories(proven.run_id, (3,), EquivocationError("two stories", evidence=b"shown"))
    monkeypatch.setattr(
        status_log, "watch", lambda *a: dataclasses.replace(honest(*a), accused=(lie,))
    )
    before = len(proven.envelopes)
    assert run(["monitor", str(proven.root), "--once", "--json"]) == 3
    (found,) = json.loads(capsys.readouterr().out)["statuses"]
    assert found["index"] == before and newest(proven).runs[0].run == proven.run_id
    evidence = key_home.parent / "evidence" / f"{proven.run_id}.two-stories.json"
    assert str(evidence) in found["twoStories"][0]
    assert evidence.read_bytes() == b"shown"


def test_watching_monitor_signs_again_only_after_growth(
    proven, key_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            with LocalLog.open(proven.root / "log") as log:
                log.append([proven.intent()], keys=[proven.keys["auditor"].public])
        if len(naps) == 3:
            run(["monitor", str(proven.root), "--once"])
        if len(naps) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(monitor_command.time, "sleep", nap)
    assert run(["monitor", str(proven.root), "--every", "7"]) == 130
    assert naps == [7.0] * 4
    # The first look, the one after the intent, and the other monitor's; none for that status.
    assert capsys.readouterr().out.count("status of contract") == 3
