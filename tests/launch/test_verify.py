"""`anh verify`: verdict lines, exit codes, memory, artifacts."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attest.log.sequencer import LocalLog
from launch.cli import run


def verify(made, *options: str) -> int:
    root = made.root
    return run(["verify", str(root / "run.proof"), "--policy", str(root / "policy.toml"), *options])


def test_own_policy_gives_integrity_and_not_honesty(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "logged (self): integrity, not honesty"
    assert rest[-1].startswith("checked in ") and rest[-1].endswith(" ms")


def test_json_holds_the_verdict_and_the_time(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "logged" and found["self"] and found["exitCode"] == 0
    assert found["run"] == proven.run_id and found["milliseconds"] > 0


def test_policy_that_asks_for_more_is_not_met(
    proven, tmp_path: Path, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (proven.root / "policy.toml").read_text()
    (proven.root / "policy.toml").write_text(text.replace('"logged"', '"sampled"'))
    assert verify(proven) == 1
    assert "not met" in capsys.readouterr().out


def test_flipped_byte_is_refused_in_one_line(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = proven.root / "run.proof"
    data = path.read_bytes()
    at = data.index(b'"steps":12')
    path.write_bytes(data[:at] + b'"steps":13' + data[at + 10 :])
    assert verify(proven) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: data[:3000], "not JSON: "),
        (lambda data: data.replace(b'"text":', b'"test":', 1), "expected an object of exactly"),
    ],
    ids=["cut off", "changed"],
)
def test_a_damaged_proof_is_named_with_what_to_do(
    damage: Callable[[bytes], bytes],
    fault: str,
    proven,
    key_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = proven.root / "run.proof"
    path.write_bytes(damage(path.read_bytes()))
    assert verify(proven) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert str(path) in captured.err and fault in captured.err
    assert "get the file again" in captured.err


def test_a_proof_of_a_later_version_is_not_called_damaged(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = proven.root / "run.proof"
    head, _, tail = path.read_bytes().rpartition(b'"version":')
    path.write_bytes(head + b'"version":99' + tail[tail.index(b"}") :])
    assert verify(proven) == 1
    error = capsys.readouterr().err
    assert "this program reads version" in error and "damaged" not in error


def test_policy_of_another_run_is_refused(
    proven, maker, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = maker("other")
    arguments = [str(proven.root / "run.proof"), "--policy", str(other.root / "policy.toml")]
    assert run(["verify", *arguments]) == 1
    error = capsys.readouterr().err
    assert "checkpoint: the policy does not name this log" in error
    assert "another run" in error and "--like D/policy.toml" in error


def test_artifact_is_compared(proven, key_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(proven, "--artifact", str(proven.root / "export")) == 0
    assert "as in the final record" in capsys.readouterr().out
    (proven.root / "export" / "model.safetensors").write_bytes(b"other weights")
    assert verify(proven, "--artifact", str(proven.root / "export")) == 1
    assert "artifact" in capsys.readouterr().err


def test_log_is_remembered_between_calls(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven) == 0
    assert "first checkpoint of the log seen here" in capsys.readouterr().out
    assert verify(proven) == 0
    assert "history: the checkpoint extends" in capsys.readouterr().out


def test_two_histories_of_one_log_are_equivocation(
    proven, maker, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven) == 0
    forked = maker("forked", changed_from=7)
    for name in ("log", "witness"):
        forked.keys[name] = proven.keys[name]
        (forked.root / "keys" / name).unlink()
        forked.keys[name].save(forked.root / "keys" / name)
    (forked.root / "policy.toml").write_text(forked.policy_text())
    forked.ship()
    capsys.readouterr()
    assert verify(forked) == 3
    assert "evidence in" in capsys.readouterr().err
    assert list((key_home.parent / "logs").rglob("equivocation-*.json"))


def test_grown_log_is_tied_to_the_remembered_one_by_the_log_or_a_file(
    proven, key_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven) == 0
    capsys.readouterr()
    from attest.consistency_file import ConsistencyFile

    old = len(proven.envelopes)
    status = proven.intent()
    proven.envelopes.append(status)
    proven.ship()
    with LocalLog.open(proven.root / "log") as log:
        path = tuple(log.consistency(old, log.size))
        file = ConsistencyFile("lab/run", old, log.size, path)
    (tmp_path / "history.json").write_bytes(file.to_bytes())
    assert verify(proven) == 0
    assert "nothing ties" in capsys.readouterr().out
    assert verify(proven, "--history", str(tmp_path / "history.json")) == 0
    assert "history: the checkpoint extends" in capsys.readouterr().out
    assert verify(proven, "--log", str(proven.root)) == 0
    assert verify(proven, "--log", str(proven.root), "--history", "x") == 2


def test_nothing_is_remembered_where_the_home_cannot_be_written(
    proven, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANH_HOME", "/proc/none")
    assert verify(proven) == 0
    assert "no memory of the log" in capsys.readouterr().out


def test_only_an_opened_tile_takes_a_proof(
    proven, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(proven, "--proof", str(proven.root / "run.proof")) == 2
    assert "no opened tile" in capsys.readouterr().err


def test_whole_process_verifies_in_a_fraction_of_a_second(proven, tmp_path: Path) -> None:
    import os
    import resource

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    arguments = [str(proven.root / "run.proof"), "--policy", str(proven.root / "policy.toml")]
    costs: list[float] = []
    for _ in range(3):
        start = spent()
        subprocess.run(
            [sys.executable, "-m", "launch", "verify", *arguments],
            check=True,
            capture_output=True,
            timeout=60,
            env=os.environ | {"ANH_HOME": str(tmp_path)},
        )
        costs.append(spent() - start)
    # CPU seconds; wall time is the same on an idle machine and says nothing on a busy one.
    assert min(costs) < 0.4
