"""Programs that are not ours accept our log, and refuse it when it is damaged."""

import base64
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.checkpoint import open_checkpoint
from attest.envelope import pae
from attest.keys import keyid
from attest.log.sequencer import LocalLog

HERE = Path(__file__).resolve().parent
ORIGIN = "log.example/runs"
GO_LIBRARY = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    path = HERE.parent / "attest" / "log" / "lab.py"
    spec = importlib.util.spec_from_file_location("tests_interop_lab", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory, lab: ModuleType) -> dict[str, Any]:
    """Return what a log of 700 records says of itself: entries with paths, older heads."""
    directory = tmp_path_factory.mktemp("foreign") / "log"
    trainer = lab.Lab()
    with LocalLog.create(directory, lab.key("log"), lab.key("witness"), ORIGIN) as log:
        log.append(trainer.opening(), keys=[trainer.author])
        heads = [open_checkpoint(log.checkpoint(), log.names.log)]
        for first, last in ((1, 7), (8, 253), (254, 697)):
            log.append(trainer.train(1, first, last))
            heads.append(open_checkpoint(log.checkpoint(), log.names.log))
        *older, newest = heads
        return {
            "Directory": str(directory),
            "Key": log.names.log.to_text(),
            "Entries": [
                {
                    "Index": index,
                    "Leaf": _text(log.entry(index).to_bytes()),
                    "Path": [_text(h) for h in log.inclusion(index, newest.size)],
                }
                for index in (0, 2, 255, 256, 511, 699)
            ],
            "Heads": [
                {
                    "Size": head.size,
                    "Root": _text(head.root),
                    "Proof": [_text(h) for h in log.consistency(head.size, newest.size)],
                }
                for head in older
            ],
        }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def go_checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled checker on Go's own library, or skip."""
    if shutil.which("go") is None:
        pytest.skip("no Go here: install golang-go")
    if not GO_LIBRARY.is_dir():
        pytest.skip("no golang.org/x/mod here: install golang-golang-x-mod-dev")
    program = tmp_path_factory.mktemp("go") / "check_log"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
    subprocess.run(
        ["go", "build", "-o", str(program), str(HERE / "check_log.go")],
        check=True,
        env={"GOCACHE": str(program.parent / "cache"), **environment},
        timeout=280,
    )
    return program


def judge(program: Path, claim: dict[str, Any]) -> str:
    result = subprocess.run(
        [str(program)], input=json.dumps(claim), capture_output=True, text=True, timeout=60
    )
    return result.stdout.strip() if result.returncode == 0 else result.stderr.strip()


def test_go_accepts_checkpoint_proofs_tiles_and_bundles(claim: dict[str, Any], go_checker: Path):
    assert judge(go_checker, claim) == "ok"


def test_go_refuses_what_was_altered(claim: dict[str, Any], go_checker: Path, tmp_path: Path):
    wrong_leaf = json.loads(json.dumps(claim))
    wrong_leaf["Entries"][2]["Leaf"] = _text(b"another record")
    assert "inclusion of 255" in judge(go_checker, wrong_leaf)
    wrong_head = json.loads(json.dumps(claim))
    wrong_head["Heads"][1]["Root"] = _text(bytes(32))
    assert "consistency from 10" in judge(go_checker, wrong_head)
    shutil.copytree(claim["Directory"], tmp_path / "log")
    tile = tmp_path / "log" / "tile" / "0" / "000"
    tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
    assert judge(go_checker, claim | {"Directory": str(tmp_path / "log")}) != "ok"


def test_securesystemslib_accepts_a_leaf_and_not_an_altered_one(
    claim: dict[str, Any], lab: ModuleType
):
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    exceptions = pytest.importorskip("securesystemslib.exceptions")
    leaf = json.loads(base64.b64decode(claim["Entries"][2]["Leaf"]))
    public = lab.key("lab worker-1-0").public
    key = signer.SSlibKey(keyid(public), "ed25519", "ed25519", {"public": public.hex()})
    assert dsse.Envelope.from_dict(json.loads(json.dumps(leaf))).verify([key], 1)
    payload = base64.b64decode(leaf["payload"]).replace(b'"step":253', b'"step":254')
    altered = {**leaf, "payload": _text(payload)}
    assert altered != leaf
    with pytest.raises(exceptions.VerificationError):
        dsse.Envelope.from_dict(altered).verify([key], 1)


def test_openssl_accepts_the_signature_over_the_dsse_encoding(
    claim: dict[str, Any], lab: ModuleType, tmp_path: Path
):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    leaf = json.loads(base64.b64decode(claim["Entries"][2]["Leaf"]))
    public = lab.key("lab worker-1-0").public
    # RFC 8410: the fixed head of an Ed25519 SubjectPublicKeyInfo, then the key.
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + public)
    (tmp_path / "message").write_bytes(pae(base64.b64decode(leaf["payload"])))
    (tmp_path / "signature").write_bytes(base64.b64decode(leaf["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
    files = ["-inkey", "key.der", "-in", "message", "-sigfile", "signature"]
    assert subprocess.run([*command, *files], cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "message").write_bytes(pae(b"another payload"))
    assert subprocess.run([*command, *files], cwd=tmp_path, capture_output=True).returncode != 0


def test_cryptography_accepts_log_and_witness_lines(claim: dict[str, Any], lab: ModuleType):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    note = (Path(claim["Directory"]) / "checkpoint").read_text("utf-8")
    text, _, lines = note.rpartition("\n\n")
    log_line, witness_line = (
        base64.b64decode(line.split(" ")[2]) for line in lines.split("\n")[:2]
    )
    body = f"{text}\n".encode()
    log = ed25519.Ed25519PublicKey.from_public_bytes(lab.key("log").public)
    log.verify(log_line[4:], body)
    witness = ed25519.Ed25519PublicKey.from_public_bytes(lab.key("witness").public)
    time = int.from_bytes(witness_line[4:12], "big")
    witness.verify(witness_line[12:], b"cosignature/v1\ntime %d\n" % time + body)
