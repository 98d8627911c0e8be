"""`anh inspect` recognises our files by content."""

import json
from pathlib import Path

import pytest

from launch.cli import run
from launch.description import readable
from launch.file_kinds import describe


def facts(path: Path) -> tuple[str, dict[str, str]]:
    found = describe(path)
    return found.kind, dict(found.facts)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("contract.json", "contract"),
        ("statements/contract.json", "signed contract statement"),
        ("statements/genesis.json", "signed genesis statement"),
        ("statements/attempt-1.json", "signed attempt statement"),
        ("statements/final.json", "signed final statement"),
        ("steps/1-0.jsonl", "step file"),
        ("metrics.jsonl", "metrics (unsigned)"),
        ("run.proof", "run proof"),
        ("log/checkpoint", "log checkpoint"),
        ("policy.toml", "policy"),
        ("config.yaml", "resolved configuration"),
        ("keys/run", "private key"),
        (".", "run directory"),
    ],
)
def test_each_file_of_a_run_is_recognised(
    name: str, kind: str, proven, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(proven.root / name)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{proven.root / name}: {kind} (form checked, nothing verified)"
    assert run(["inspect", str(proven.root / name), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == kind


def test_statement_shows_hashes_signers_and_readable_floats(proven) -> None:
    kind, found = facts(proven.root / "statements" / "final.json")
    final = proven.statement("final")
    assert kind == "signed final statement"
    assert found["record"] == final.record_hash().hex()
    assert found["signed by"] == proven.keys["run"].keyid
    assert found["metrics.loss"] == f"0.25  ({(0.25).hex()})"
    assert found["subject model.safetensors"].startswith("sha256 ")


def test_step_file_shows_its_steps_and_a_torn_tail(unfinished) -> None:
    path = unfinished.root / "steps" / "2-0.jsonl"
    assert facts(path)[1]["steps"] == "6 to 9"
    assert not describe(path).notes
    with path.open("ab") as stream:
        stream.write(b'{"payload":')
    assert "torn" in describe(path).notes[0]
    assert facts(path)[1]["rows"] == "4"


def test_damaged_step_file_is_refused_with_its_line(
    unfinished, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unfinished.root / "steps" / "1-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    assert run(["inspect", str(path)]) == 1
    assert "line 2" in capsys.readouterr().err


def test_vkey_and_artifact_are_recognised(finished, tmp_path: Path) -> None:
    from attest.keys import VerifierKey

    vkey = tmp_path / "log.vkey"
    text = VerifierKey("lab", 1, finished.keys["log"].public).to_text()
    vkey.write_text(text + "\n")
    assert facts(vkey)[1]["public"] == finished.keys["log"].public.hex()
    artifact = tmp_path / "init.stablehlo"
    artifact.write_bytes(b"ML\xefR" + bytes(10))
    assert facts(artifact)[0].startswith("StableHLO program")


def test_program_signature_lists_inputs_and_outputs(tmp_path: Path) -> None:
    from attest import canonical

    leaf = {"path": ["seed"], "shape": [2], "dtype": "uint32", "spec": [[]]}
    out = {"path": ["parameters", "w"], "shape": ["b", 3], "dtype": "float32", "spec": [[], []]}
    path = tmp_path / "init.json"
    path.write_bytes(
        canonical.encode(
            {
                "name": "init",
                "stablehlo": "1.8.0",
                "arguments": ["seed"],
                "inputs": [leaf],
                "outputs": [out],
            }
        )
    )
    kind, found = facts(path)
    assert kind == "program signature"
    assert found["input seed"] == "uint32 2"
    assert found["output parameters/w"] == "float32 b x 3"


def test_inspect_never_judges_a_signature(finished, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished.root / "statements" / "final.json"
    value = json.loads(path.read_bytes())
    sig = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = ("A" if sig[0] != "A" else "B") + sig[1:]
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))
    assert run(["inspect", str(path)]) == 0
    assert "nothing verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data, code",
    [
        (b"", 2),
        (b"hello", 2),
        (b"\x00\x01\xff", 2),
        (b"{}", 2),
        (b'{"payload":', 1),
        (b'{"payload":1,"payloadType":2,"signatures":3}', 1),
        (b'{"checkpoint":1,"nodes":[],"records":[]}', 1),
        (b'{"a": 1}\n{"b": 2}\n', 2),
        (b"[1, 2]", 2),
        (b"{" * 100_000, 1),
    ],
)
def test_other_and_damaged_files_are_refused_in_one_line(
    data: bytes, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert run(["inspect", str(path)]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_hex_floats_are_shown_with_their_value() -> None:
    assert readable((0.1).hex()).startswith("0.1  (")
    assert readable("0xnot") == "0xnot" and readable("64") == "64"
