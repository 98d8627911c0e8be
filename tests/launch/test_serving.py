"""`anh log init`, `serve` and `freeze`, and `anh witness`: what an operator types and reads."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attest.envelope import Envelope, sign
from attest.equivocation import check_evidence
from attest.errors import InputError
from attest.keys import ALG_ED25519, PrivateKey, VerifierKey
from attest.log.http_reader import HttpReader, Patience
from attest.log.sequencer import LocalLog
from attest.log.wire import encode_lines
from attest.proof import parse_proof
from attest.rejections import RejectedError
from attest.statements import ContractStatement, Intent, decode_statement, encode_statement
from attest.witness import Witness
from launch.cli import run
from launch.witness_serving import open_witness


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


@pytest.mark.parametrize("words", [["serve"], ["show"]])
def test_directory_without_a_witness_says_how_to_make_one(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["witness", *words, str(tmp_path / "W")]) == 2
    assert f"anh witness init {tmp_path / 'W'} --name NAME" in capsys.readouterr().err


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


def contract_record(author: PrivateKey) -> tuple[Any, bytes]:
    key_line, leaf = contract_by(author).splitlines()
    assert author.public.hex().encode() in key_line
    return Envelope.from_bytes(leaf), author.public


def test_monitor_convicts_a_log_that_showed_a_witness_another_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    log, w = tmp_path / "L", tmp_path / "W"
    assert run(["log", "init", str(log), "--origin", "log.example/x", "--json"]) == 0
    made = VerifierKey.from_text(told(capsys)["log"])
    assert run(["witness", "init", str(w), "--name", "w.example/a", "--json"]) == 0
    vkey = told(capsys)["witness"]
    assert run(["witness", "add-log", str(w), made.to_text()]) == 0
    keys = {name: PrivateKey.load(log / "keys" / name) for name in ("log", "witness")}
    assert run(["key", "new", "eye"]) == 0
    witness = open_witness(w)

    def fork(name: str) -> bytes:
        """Publish a tree of one contract, by an author of its own, under the log's key."""
        envelope, public = contract_record(PrivateKey.generate())
        folder = tmp_path / name
        with LocalLog.create(folder, keys["log"], keys["witness"], "log.example/x") as other:
            other.append([envelope], keys=[public])
            return other.checkpoint()

    with LocalLog.open(log / "log") as opened:
        envelope, public = contract_record(PrivateKey.generate())
        opened.append([envelope], keys=[public])
        honest = opened.checkpoint()
    with (
        serving("log", "serve", str(log)) as (served, _),
        serving("witness", "serve", str(w)) as (asked, _),
    ):
        words = ["monitor", served["url"], "--once", "--key", "eye", "--operator", "eye"]
        words += ["--witness", f"{vkey} {asked['url']}"]
        capsys.readouterr()
        assert run(words) == 2  # the witness has cosigned nothing yet
        assert "does this witness know log.example/x" in capsys.readouterr().err
        witness.cosign(0, [], honest)
        assert run(words) == 0
        (w / "memory").rename(tmp_path / "honest")
        fresh = Witness.create(w / "memory", PrivateKey.load(w / "keys" / "witness"), "w.example/a")
        fresh.register(made)
        fresh.cosign(0, [], fork("fork"))
        capsys.readouterr()
        assert run(words) == 3
    (evidence,) = (tmp_path / "home" / "evidence").iterdir()
    assert str(evidence) in capsys.readouterr().err
    first, second = check_evidence(evidence.read_bytes(), made)
    assert first.size == 1 and second.size >= 1


def intent_on(contract: str, auditor: PrivateKey) -> bytes:
    statement = Intent("contract", contract, "auditor.example", os.urandom(32).hex())
    leaf = sign(encode_statement(statement), [auditor]).to_bytes()
    return encode_lines([leaf], [auditor.public])


def test_acknowledged_records_outlive_a_killed_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "L"
    assert run(["log", "init", str(log), "--origin", "log.example/x"]) == 0
    envelope, public = contract_record(PrivateKey.generate())
    contract = decode_statement(envelope.payload).subjects()[0].digest
    acknowledged: dict[bytes, int] = {}

    def submit(url: str) -> None:
        service, auditor = HttpReader(url, Patience(tries=1)), PrivateKey.generate()
        while True:
            body = intent_on(contract, auditor)
            try:
                reply = service.post("/submit", body)
            except InputError:
                return  # the server is dead
            (acknowledged[body.splitlines()[1]],) = json.loads(reply.data)["indices"]

    for _ in range(3):
        with serving("log", "serve", str(log)) as (served, process):
            HttpReader(served["url"]).post("/submit", encode_lines([envelope.to_bytes()], [public]))
            threads = [threading.Thread(target=submit, args=(served["url"],)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            process.kill()
            for thread in threads:
                thread.join()
    assert len(acknowledged) > 10
    assert run(["log", "fsck", str(log)]) == 0
    with LocalLog.open(log / "log") as opened:
        for leaf, index in acknowledged.items():
            assert opened.entry(index).to_bytes() == leaf
