"""`anh log init`, `serve` and `freeze`, and `anh witness`: what an operator types and reads."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attest.keys import ALG_ED25519, PrivateKey, VerifierKey
from attest.log.http_reader import HttpReader
from attest.log.sequencer import LocalLog
from attest.rejections import RejectedError
from launch.cli import run


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@contextmanager
def serving(*words: str) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "launch", *words, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


def test_log_is_made_served_frozen_and_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "L"
    assert run(["log", "init", str(folder), "--origin", "log.example/x", "--json"]) == 0
    made = told(capsys)
    assert VerifierKey.from_text(made["log"]).name == "log.example/x"
    assert {p.stat().st_mode & 0o777 for p in (folder / "keys").iterdir()} == {0o600}
    with serving("log", "serve", str(folder)) as (began, process):
        assert began["log"] == made["log"]
        service = HttpReader(began["url"])
        assert json.loads(service.get("/healthz").data)["healthy"] is True
        # A second server of the same log is refused: one sequencer.
        assert run(["log", "serve", str(folder), "--port", "0"]) == 2
        assert "another process holds it" in capsys.readouterr().err
        assert run(["log", "freeze", str(folder), "--json"]) == 0
        assert told(capsys)["size"] == 0
        author = PrivateKey.generate()
        with pytest.raises(RejectedError) as caught:
            service.post("/submit", contract_by(author))
        assert caught.value.check == "frozen"
        assert json.loads(service.get("/healthz").data)["frozen"] is True
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    assert run(["log", "fsck", str(folder)]) == 0


def contract_by(author: PrivateKey) -> bytes:
    from attest.envelope import sign
    from attest.log.wire import encode_lines
    from attest.proof import parse_proof
    from attest.statements import ContractStatement

    golden = Path(__file__).resolve().parent.parent / "golden" / "run.proof"
    (record,) = parse_proof(golden.read_bytes()).of_kind(ContractStatement)
    envelope = sign(record.envelope.payload, [author])
    return encode_lines([envelope.to_bytes()], [author.public])


def test_directory_that_holds_something_becomes_no_log_and_no_witness(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "something").touch()
    assert run(["log", "init", str(tmp_path), "--origin", "log.example/x"]) == 2
    assert run(["witness", "init", str(tmp_path), "--name", "w.example/a"]) == 2
    assert capsys.readouterr().err.count("is not empty") == 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--origin", "a name with spaces"],
        ["--origin", "log.example/x", "--witness", "https://w.example"],
        ["--origin", "log.example/x", "--store", "s3://bucket/log"],
        ["--origin", "log.example/x", "--tiles", "bucket"],
    ],
)
def test_log_that_cannot_be_made_leaves_nothing_in_the_way_of_the_next_try(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "L"
    assert run(["log", "init", str(folder), *flags]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["log", "init", str(folder), "--origin", "log.example/x"]) == 0


def test_witness_cosigns_the_served_log_that_asks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w, log = tmp_path / "W", tmp_path / "L"
    assert run(["witness", "init", str(w), "--name", "w.example/a", "--json"]) == 0
    vkey = told(capsys)["witness"]
    with serving("witness", "serve", str(w)) as (began, process):
        assert began["witness"] == vkey
        asked = f"{vkey} {began['url']}"
        words = ["log", "init", str(log), "--origin", "log.example/x", "--witness", asked]
        assert run([*words, "--json"]) == 0
        of_log = told(capsys)["log"]
        assert run(["witness", "add-log", str(w), of_log]) == 0
        assert run(["witness", "add-log", str(w), of_log]) == 2
        assert run(["witness", "add-log", str(w), vkey]) == 2
        with LocalLog.open(log / "log") as opened:
            note = opened.checkpoint()
            assert "w.example/a" in note.decode()
            assert [witness.trouble for witness in opened.witnesses.witnesses] == [""]
        capsys.readouterr()
        assert run(["witness", "show", str(w), "--json"]) == 0
        assert told(capsys) == {"witness": vkey, "logs": {"log.example/x": 0}}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_port_that_is_taken_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["witness", "init", str(tmp_path / "W"), "--name", "w.example/a"]) == 0
    with serving("witness", "serve", str(tmp_path / "W")) as (began, _):
        port = began["url"].rpartition(":")[2]
        assert run(["witness", "serve", str(tmp_path / "W"), "--port", port]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_monitor_of_a_served_log_needs_a_key_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["monitor", "https://log.example", "--once"]) == 2
    assert "name your monitor key" in capsys.readouterr().err
    assert os.environ["ANH_HOME"]


def test_witness_key_signs_for_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["witness", "init", str(tmp_path / "W"), "--name", "w.example/a"]) == 0
    key = PrivateKey.load(tmp_path / "W" / "keys" / "witness")
    own = VerifierKey("log.example/x", ALG_ED25519, key.public).to_text()
    assert run(["witness", "add-log", str(tmp_path / "W"), own]) == 2
    assert "not the witness's own" in capsys.readouterr().err
