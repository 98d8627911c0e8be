"""Programs that are not ours accept what `anh export` writes, and refuse its altered twin.

The Python ones live in an environment of their own (`foreign.txt`), the JavaScript one in a folder
of node modules; `.ci/run` makes both. Where one is absent its tests skip and say so.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from attest.cose import receipt, signed_statement
from attest.exports import intoto_bundle, sigstore_bundle
from attest.keys import PrivateKey
from attest.policy import load_policy
from attest.proof import ProofRecord, RunProof, parse_proof
from attest.record_proof import record_proof
from attest.statements import ExportedFile, Final

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDEN = HERE.parent / "golden"
NOTARY = PrivateKey(b"n" * 32)

Judge = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> RunProof:
    return parse_proof((GOLDEN / "run.proof").read_bytes())


@pytest.fixture(scope="module")
def final(run: RunProof) -> ProofRecord:
    return run.of_kind(Final)[0]


@pytest.fixture(scope="module")
def run_key() -> bytes:
    (key,) = (e for e in load_policy(GOLDEN / "policy.toml").keys if e.role.value == "run")
    return key.public


@pytest.fixture(scope="module")
def read() -> Judge:
    """Return the judgement of a foreign Python library on a claim."""
    python = Path(os.environ.get("ANH_FOREIGN_PYTHON") or ROOT / ".cache/foreign/bin/python")
    if not python.exists():
        pytest.skip("no foreign readers here: install tests/interop/foreign.txt in .cache/foreign")

    def judge(tool: str, **claim: str) -> str:
        # No path of ours: the readers are to stand on their own packages.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        command = [str(python), "-I", str(HERE / "read_export.py"), tool]
        return _judged(command, claim, environment)

    return judge


@pytest.fixture(scope="module")
def verify_bundle() -> Judge:
    """Return the judgement of @sigstore/verify on a bundle."""
    modules = Path(os.environ.get("ANH_NODE_MODULES") or ROOT / ".cache/node/node_modules")
    if shutil.which("node") is None or not (modules / "@sigstore/verify").is_dir():
        pytest.skip("no @sigstore/verify here: npm install --prefix .cache/node @sigstore/verify")

    def judge(**claim: str) -> str:
        command = ["node", str(HERE / "verify_bundle.js")]
        return _judged(command, claim, {**os.environ, "NODE_PATH": str(modules)})

    return judge


def _judged(command: list[str], claim: dict[str, str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        input=json.dumps(claim),
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    if done.stdout.startswith("absent"):
        pytest.skip(done.stdout.strip())
    return done.stdout.strip()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pem(public: bytes) -> str:
    # RFC 8410: the fixed head of an Ed25519 SubjectPublicKeyInfo, then the key.
    body = text(bytes.fromhex("302a300506032b6570032100") + public)
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def altered(line: bytes, old: bytes, new: bytes) -> bytes:
    """Change what a record says and keep its signatures."""
    value = json.loads(line)
    envelope = value.get("dsseEnvelope", value)
    payload = base64.b64decode(envelope["payload"])
    assert old in payload
    envelope["payload"] = text(payload.replace(old, new))
    return json.dumps(value).encode()


def test_securesystemslib_verifies_an_intoto_bundle(
    final: ProofRecord, run: RunProof, run_key: bytes, read: Judge
) -> None:
    signer = {"public": run_key.hex(), "keyid": final.signer}
    signed = [r for r in run.records if r.signer == final.signer]
    data = intoto_bundle(r.envelope for r in signed)
    assert data.count(b"\n") == 3, "genesis, attempt, final"
    assert read("dsse", data=text(data), **signer) == "accepted"
    *lines, last = data.splitlines()
    twin = b"\n".join([*lines, altered(last, b'"steps":40', b'"steps":41')])
    assert read("dsse", data=text(twin), **signer).startswith("refused: VerificationError")


def test_in_toto_attestation_validates_every_statement(run: RunProof, read: Judge) -> None:
    data = intoto_bundle(r.envelope for r in run.records)
    assert read("statement", data=text(data)) == "accepted"
    line = data.splitlines()[0]
    twin = altered(line, b"https://in-toto.io/Statement/v1", b"https://in-toto.io/Statement/v9")
    assert read("statement", data=text(twin)).startswith("refused")


def test_sigstore_verifies_a_bundle(
    final: ProofRecord, run_key: bytes, verify_bundle: Judge
) -> None:
    bundle = sigstore_bundle(final.envelope)
    key = {"pem": pem(run_key), "hint": final.signer}
    assert verify_bundle(bundle=bundle.decode(), **key) == "accepted"
    twin = altered(bundle, b'"steps":40', b'"steps":41')
    assert "SIGNATURE_ERROR" in verify_bundle(bundle=twin.decode(), **key)
    assert verify_bundle(bundle=bundle.decode(), pem=key["pem"], hint="0" * 64) != "accepted"


def test_scitt_cose_verifies_receipt_and_statement(
    final: ProofRecord, run: RunProof, read: Judge
) -> None:
    leaf = final.envelope.to_bytes()
    data = receipt(final, record_proof(run, final), NOTARY, "notary.example")
    claim = {
        "data": text(data),
        "statement": text(signed_statement(final, NOTARY, "notary.example")),
        "leaf": text(leaf),
        "pem": pem(NOTARY.public),
    }
    assert read("cose", **claim) == "accepted"
    other = run.records[0].envelope.to_bytes()
    assert read("cose", **{**claim, "leaf": text(other)}).startswith("refused")
    twin = data[:-1] + bytes([data[-1] ^ 1])
    assert read("cose", **{**claim, "data": text(twin)}).startswith("refused")
    stated = signed_statement(final, NOTARY, "notary.example").replace(b"notary.ex", b"notary.ey")
    assert read("cose", **{**claim, "statement": text(stated)}).startswith("refused")


def test_cbor2_writes_both_in_the_same_bytes(
    final: ProofRecord, run: RunProof, read: Judge
) -> None:
    one = record_proof(run, final)
    for data in (
        receipt(final, one, NOTARY, "notary.example"),
        signed_statement(final, NOTARY, "notary.example"),
    ):
        assert read("spelling", data=text(data)) == "accepted"
    longer = data.replace(bytes.fromhex("d284"), bytes.fromhex("d81284"), 1)
    assert longer != data
    assert read("spelling", data=text(longer)).startswith("refused")


def test_aics_tlog_verifies_a_tlog_proof(final: ProofRecord, run: RunProof, read: Judge) -> None:
    policy = load_policy(GOLDEN / "policy.toml")
    keys = {
        "log": policy.log.key.to_text(),
        "witness": policy.witnesses[0].key.to_text(),
    }
    data = record_proof(run, final).to_bytes()
    assert read("note", data=text(data), **keys) == "accepted"
    moved = data.replace(b"\nindex 43\n", b"\nindex 42\n")
    assert "inclusion" in read("note", data=text(moved), **keys)
    grown = data.replace(b"\n46\n", b"\n47\n")
    assert "checkpoint" in read("note", data=text(grown), **keys)


def test_model_signing_verifies_exported_weights(
    tmp_path: Path, final: ProofRecord, read: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    from launch.model_signature import model_signature, public_half, release_key

    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    model = tmp_path / "model"
    (model / "shards").mkdir(parents=True)
    names = ("config.json", "shards-2.safetensors", "shards/1.safetensors")
    for name in names:
        (model / name).write_bytes(f"bytes of {name}".encode())
    files = tuple(ExportedFile(n, sha256((model / n).read_bytes()).hexdigest()) for n in names)
    said = final.statement
    assert isinstance(said, Final)
    data = model_signature(replace(said, files=files), release_key("release"), "model")
    (tmp_path / "model.sig").write_bytes(data)
    claim = {
        "model": str(model),
        "signature": str(tmp_path / "model.sig"),
        "key": str(public_half("release")),
    }
    assert read("model", **claim) == "accepted"
    (model / "config.json").write_bytes(b"other bytes")
    assert read("model", **claim).startswith("refused")
