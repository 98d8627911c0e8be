"""A witness that is not ours (aics-witness) cosigns our log as it grows, and refuses its fork."""

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from attest.checkpoint import open_checkpoint
from attest.cosignature import open_cosigned
from attest.keys import ALG_ED25519, VerifierKey
from attest.log.http_witness import HttpWitness
from attest.log.sequencer import LocalLog
from attest.note import Note, NoteSignature

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ORIGIN = "log.example/watched"


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    path = HERE.parent / "attest" / "log" / "lab.py"
    spec = importlib.util.spec_from_file_location("tests_witness_lab", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def witness(tmp_path: Path, lab: ModuleType) -> Iterator[HttpWitness]:
    """Serve a foreign witness on loopback that knows our log."""
    python = Path(os.environ.get("ANH_FOREIGN_PYTHON") or ROOT / ".cache/foreign/bin/python")
    probe = [str(python), "-I", "-c", "import aics_witness"]
    if not python.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("no aics-witness here: install tests/interop/foreign.txt in .cache/foreign")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    (tmp_path / "witness").mkdir()

    def tool(*words: str) -> list[str]:
        return [str(python), "-I", "-m", "aics_witness", *words]

    def said(*words: str) -> str:
        done = subprocess.run(
            tool(*words), cwd=tmp_path / "witness", capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = said("init", "--name", "w.example", "--listen", address)
    vkey = re.search(r"w\.example\+[0-9a-f]{8}\+\S+", made)
    assert vkey is not None, made
    log = VerifierKey(ORIGIN, ALG_ED25519, lab.key("log").public)
    said("add-log", "--origin", ORIGIN, "--vkey", log.to_text())
    with (tmp_path / "witness.log").open("wb") as told:
        process = subprocess.Popen(
            tool("serve"), cwd=tmp_path / "witness", stdout=told, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(address)
        yield HttpWitness.from_text(f"{vkey[0]} http://{address}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    pytest.fail("the witness did not start to listen in 30 s")


def asked(witness: HttpWitness, log: LocalLog) -> NoteSignature | None:
    """Ask for a line under the log's newest head."""
    note = log.checkpoint()
    head = open_checkpoint(note, log.names.log)
    return witness.ask(note, head, log.names.log, lambda old: log.consistency(old, head.size))


def test_a_foreign_witness_cosigns_growth_and_refuses_a_fork(
    tmp_path: Path, lab: ModuleType, witness: HttpWitness
) -> None:
    trainer, forked = lab.Lab(), lab.Lab(steps=200)
    with LocalLog.create(tmp_path / "log", lab.key("log"), lab.key("witness"), ORIGIN) as log:
        log.append(trainer.opening(), keys=[trainer.author])
        for first, last in ((1, 5), (6, 40)):
            log.append(trainer.train(1, first, last))
            line = asked(witness, log)
            assert line is not None, witness.trouble
            cosigned = Note.from_bytes(log.published()).signed_also(line).to_bytes()
            opened = open_cosigned(cosigned, log.names.log, [witness.vkey])
            assert len(opened.cosignatures) == 1 and opened.checkpoint.size == last + 3
    with LocalLog.create(tmp_path / "fork", lab.key("log"), lab.key("witness"), ORIGIN) as fork:
        fork.append([*forked.opening(), *forked.train(1, 1, 60)], keys=[forked.author])
        assert asked(witness, fork) is None
        assert "422" in witness.trouble
