"""`anh export` and what reads its files: formats, choices, refusals, exit codes."""

import json
from pathlib import Path

import pytest

from attest.keys import ALG_ED25519, VerifierKey
from attest.policy import load_policy
from launch.cli import run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_home: Path) -> Path:
    """Work in a folder of the test's own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    run([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    capsys.readouterr()
    assert run([*arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_a_record_is_exported_and_verified(
    proven, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = str(proven.root / "policy.toml")
    assert run(["export", str(proven.root / "run.proof"), "--to", "tlog-proof"]) == 0
    (file,) = here.glob("final-*.tlog-proof")
    assert run(["verify", str(file), "--policy", policy]) == 0
    told_by_content = told(capsys, "inspect", str(file))
    assert told_by_content["kind"] == "proof of one record"
    found = told(capsys, "verify", str(file), "--policy", policy)
    assert found["kind"] == "final" and found["exitCode"] == 0
    data = file.read_bytes()
    (here / "bad.tlog-proof").write_bytes(data.replace(b"\nindex ", b"\nindex 1", 1))
    assert "inclusion" in refused(capsys, 1, "verify", "bad.tlog-proof", "--policy", policy)


def test_a_step_from_the_log_needs_its_runs_proof(
    proven, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, policy = str(proven.root), str(proven.root / "policy.toml")
    record = next(e for e in proven.envelopes if b'attest/step/v1"' in e.payload)
    wanted = record.record_hash().hex()
    assert run(["export", root, "--to", "tlog-proof", "--record", wanted, "-o", "s"]) == 0
    assert "--proof" in refused(capsys, 1, "verify", "s", "--policy", policy)
    proof = ["--proof", f"{root}/run.proof"]
    assert run(["verify", "s", "--policy", policy, *proof]) == 0


def test_a_policy_that_asks_for_more_than_a_record_shows_is_not_met(
    proven, capsys: pytest.CaptureFixture[str]
) -> None:
    path = proven.root / "policy.toml"
    path.write_text(path.read_text().replace('"logged"', '"sampled"'))
    assert run(["export", str(proven.root), "--to", "tlog-proof", "-o", "f"]) == 0
    assert run(["verify", "f", "--policy", str(path)]) == 1
    assert "only a run proof can show" in capsys.readouterr().out


def test_all_records_go_into_an_intoto_bundle(proven, here: Path) -> None:
    assert run(["export", str(proven.root), "--to", "intoto"]) == 0
    lines = (here / "run.intoto.jsonl").read_bytes().splitlines()
    statements = [proven.statement(n) for n in ("contract", "genesis", "attempt-1", "final")]
    assert lines == [envelope.to_bytes() for envelope in statements]


def test_cose_asks_for_a_key_and_writes_two_files(
    proven, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(proven.root)
    assert "--key" in refused(capsys, 2, "export", root, "--to", "cose")
    assert run(["key", "new", "notary"]) == 0
    assert run(["export", root, "--to", "cose", "--key", "notary", "-o", "out"]) == 0
    assert (here / "out.receipt").is_file() and (here / "out.scitt").is_file()
    assert "exists" in refused(capsys, 2, "export", root, "--to", "cose", "--key", "notary",
                               "-o", "out")  # fmt: skip


def test_of_two_files_none_is_written_where_one_exists(
    proven, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["key", "new", "notary"]) == 0
    (here / "out.scitt").write_bytes(b"mine")
    export = ["export", str(proven.root), "--to", "cose", "--key", "notary", "-o", "out"]
    assert "out.scitt: exists" in refused(capsys, 2, *export)
    assert not (here / "out.receipt").exists() and (here / "out.scitt").read_bytes() == b"mine"


def test_weights_are_signed_only_if_they_are_the_final_records(
    proven, here: Path, key_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    root = str(proven.root)
    assert run(["export", root, "--to", "oms"]) == 0
    assert (here / "digits-3.model.sig").is_file()
    assert (key_home / "release.p256.pem").stat().st_mode & 0o777 == 0o600
    assert (key_home / "release.p256.pub.pem").read_bytes().startswith(b"-----BEGIN PUBLIC")
    kept = (key_home / "release.p256.pem").read_bytes()
    assert run(["export", root, "--to", "oms", "-o", "again.sig"]) == 0
    assert (key_home / "release.p256.pem").read_bytes() == kept
    (proven.root / "export" / "model.safetensors").write_bytes(b"others")
    assert "artifact" in refused(capsys, 1, "export", root, "--to", "oms", "-o", "x.sig")
    assert not (here / "x.sig").exists()


WRONG = {
    "no such record": (["--to", "sigstore", "--record", "audit"], "holds none such"),
    "index beyond the log": (["--to", "tlog-proof", "--record", "9999"], "no entry of the log"),
    "unknown hash": (["--to", "tlog-proof", "--record", "0" * 64], "no entry of the log"),
    "key without need": (["--to", "intoto", "--key", "k"], "needs no key"),
    "record for weights": (["--to", "oms", "--record", "final"], "--record"),
    "unknown key": (["--to", "cose", "--key", "nobody"], "nobody"),
}


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_exported_is_said_in_one_line(
    proven, here: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert words in refused(capsys, 2, "export", str(proven.root), *options)
    assert list(here.iterdir()) == []


def test_a_tlog_policy_becomes_a_policy(
    proven, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = load_policy(proven.root / "policy.toml")
    log, witness = own.log.key.to_text(), own.witnesses[0].key.to_text()
    author = f"{proven.keys['author'].public.hex()}=lab"
    (here / "p").write_text(f"log {log}\nwitness w {witness}\ngroup g 1 w\nquorum g\n")
    new = ["policy", "new", "mine.toml", "--from-tlog-policy", "p", "--author", author]
    assert run(new) == 0
    assert "g: 1 of w" in capsys.readouterr().out
    proof = str(proven.root / "run.proof")
    assert run(["verify", proof, "--policy", "mine.toml"]) == 0
    (here / "p").write_text(f"log {log}\nquorum none\n")
    assert "quorum none" in refused(capsys, 2, *new[:2], "other.toml", *new[3:])
    assert not (here / "other.toml").exists()
    assert "--witness" in refused(capsys, 2, *new, "--quorum", "1")
    other = VerifierKey("other.example", ALG_ED25519, proven.keys["author"].public).to_text()
    (here / "p").write_text(f"log {log}\nwitness w {witness}\nquorum w\n")
    assert "not among the logs" in refused(capsys, 2, *new, "--log", f"{other}=x")
    (here / "p").write_text(f"log {log}\nlog {other}\nwitness w {witness}\nquorum w\n")
    assert "several logs" in refused(capsys, 2, *new[:2], "other.toml", *new[3:])
    assert run([*new[:2], "other.toml", *new[3:], "--log", f"{log}=logco"]) == 0
    assert load_policy("other.toml").log.operator == "logco"
