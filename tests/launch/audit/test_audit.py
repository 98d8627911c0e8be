"""`anh audit` end to end, on a small real run: announce, re-execute, sign, prove, verify."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.training.executor import Executor
from attest.envelope import Envelope
from attest.log import admission
from attest.log.sequencer import LocalLog
from attest.spread_seed import step_seed
from attest.statements import Audit, Final, Property, decode_statement, encode_statement
from launch.cli import run

STEPS = 24


def test_announced_audit_by_a_foreign_operator_makes_a_run_sampled(
    going: Path, key_home: Path, ask, make_keys, naming
) -> None:
    make_keys("alice", "watch")
    who = ("--key", "alice", "--operator", "acme")
    code, announced = ask("audit", going, "--intend", *who)
    assert (code, announced["auditor"]) == (0, "acme")
    nonce = Path(announced["nonce"])
    assert nonce.is_relative_to(key_home.parent) and nonce.stat().st_mode & 0o77 == 0
    secret = nonce.read_text().strip().encode()
    assert not any(secret in p.read_bytes() for p in going.rglob("*") if p.is_file())
    code, answer = ask("audit", going, *who)
    assert code == 2 and "the run is not final" in answer["error"]

    assert run(["resume", str(going)]) == 0
    code, found = ask("audit", going, *who, "--samples", "6")
    steps = len(found["steps"])
    assert (code, found["verdict"]) == (0, f"passed: {steps} of {steps} steps")
    assert (found["sample"], found["selfSampled"], found["sources"]) == ("intents", False, ["acme"])
    # Attempt 1 took step 9 too, and the last step is always added.
    assert {9, STEPS} <= set(found["steps"])
    assert found["counts"]["pass"] == steps
    verdicts = {name: check["verdict"] for name, check in found["checks"].items()}
    # Equal bits leave nothing to look at for a walk.
    held = dict.fromkeys(("init", "line", "export"), "pass")
    assert verdicts == {**held, "walk": "not checked"}
    assert found["secondsPerStep"] < 20

    eye = ("--key", "watch", "--operator", "eye.example")
    assert run(["monitor", str(going), "--once", *eye]) == 0
    assert run(["prove", str(going)]) == 0
    foreign = ("--auditor", "alice=acme", "--monitor", "watch=eye.example")
    mine = naming(going, *foreign, "--level", "sampled", "--property", "accuracy=1")
    code, verdict = ask("verify", going / "run.proof", "--policy", mine)
    assert (code, verdict["level"]) == (0, "sampled")
    assert verdict["headline"].startswith("sampled by acme: 6 of 24 steps")
    assert verdict["properties"][0]["state"] == "validated"
    assert len((going / "run.proof").read_bytes()) <= 16 * 1024

    code, own = ask("verify", going / "run.proof", "--policy", going / "policy.toml")
    assert (code, own["level"], own["self"]) == (0, "logged", True)


def test_audit_of_ones_own_run_says_self_sampled(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(fresh), "--samples", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("passed: ")
    assert "self-sampled" in shown
    assert "client says  logged (self): integrity, not honesty" in shown
    assert "no probability is stated" in shown
    assert run(["verify", str(fresh / "run.proof"), "--policy", str(fresh / "policy.toml")]) == 0
    assert "self-sampled" in capsys.readouterr().out


def test_self_announced_audit_is_still_self_sampled(going: Path, key_home: Path, ask) -> None:
    assert ask("audit", going, "--intend")[0] == 0
    assert run(["resume", str(going)]) == 0
    code, found = ask("audit", going)
    assert (code, found["sample"], found["selfSampled"]) == (0, "intents", True)
    assert (going / "keys" / "auditor").is_file()
    assert not list(going.rglob("*.nonce"))


def test_receipt_in_the_log_opens_with_the_results_file(fresh: Path, ask, logged) -> None:
    code, found = ask("audit", fresh, "--samples", "4")
    assert code == 0
    records = logged(fresh)
    (audit,) = [said for said in records if isinstance(said, Audit)]
    (said,) = [said for said in records if isinstance(said, Property)]
    results = json.loads(Path(found["resultsFile"]).read_text())
    assert results["resultsRoot"] == audit.results_root == found["resultsRoot"]
    assert [row["step"] for row in results["results"]] == found["steps"]
    assert (said.correct, said.total) == (
        found["properties"][0]["correct"],
        found["properties"][0]["total"],
    )
    assert audit.counts.pass_ == audit.steps == len(found["steps"])
    assert ask("audit", fresh, "--steps", "3")[1]["resultsFile"].endswith("audits/2.json")


def test_chosen_steps_are_no_sample(fresh: Path, ask, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = ask("audit", fresh, "--steps", "7,3")
    assert (code, found["sample"], found["steps"], found["k"]) == (0, "chosen", [3, 7], 2)
    assert run(["audit", str(fresh), "--steps", "3"]) == 0
    assert "chosen by hand: no sample" in capsys.readouterr().out


def test_key_needs_an_operator_that_the_policy_agrees_with(
    fresh: Path, ask, make_keys, naming
) -> None:
    make_keys("alice", "carol")
    assert "--key needs --operator" in ask("audit", fresh, "--key", "alice")[1]["error"]
    assert "--operator names" in ask("audit", fresh, "--operator", "acme")[1]["error"]
    mine = naming(fresh, "--auditor", "alice=acme")
    asked = ("--policy", mine, "--steps", "3")
    wrong = ask("audit", fresh, "--key", "alice", "--operator", "umbrella", *asked)
    assert wrong[0] == 2 and "the policy gives this key to acme" in wrong[1]["error"]
    assert "names no auditor key" in ask("audit", fresh, "--key", "carol", *asked)[1]["error"]
    code, found = ask("audit", fresh, "--key", "alice", *asked)
    assert (code, found["auditor"]) == (0, "acme")


def test_refuted_run_exits_with_1_and_its_proof_is_refused(
    config: Path, tmp_path: Path, key_home: Path, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Executor.update

    def larger(self: Executor, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
        old = jax.tree.map(np.array, state["parameters"])
        after = honest(self, state, outputs, scalars, step)
        if step != 20:
            return after
        move = np.float32(1.0001)
        moved = jax.tree.map(lambda a, b: a + move * (b - a), old, after["parameters"])
        return {**after, "parameters": moved}

    root = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Executor, "update", larger)
        assert run(["train", str(config), "--run-dir", str(root)]) == 0
    assert ask("audit", root, "--steps", "5")[0] == 0
    code, found = ask("audit", root, "--steps", "20,21")
    assert code == 1
    assert found["verdict"].startswith("REFUTED: step 20: state root")
    assert (found["counts"]["refuted"], found["counts"]["withheld"]) == (1, 1)
    assert found["client"].startswith("refused: ") and "refutes 1 steps" in found["client"]
    assert run(["verify", str(root / "run.proof"), "--policy", str(root / "policy.toml")]) == 1


def test_file_on_disk_that_is_not_the_exported_one_fails(fresh: Path, ask) -> None:
    path = fresh / "export" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    code, found = ask("audit", fresh, "--steps", "3")
    assert code == 1
    assert found["verdict"].endswith("is not the file that the final record names")
    # What the run committed holds, and that is what the receipt says.
    assert found["checks"]["export"]["verdict"] == "pass"


def test_audit_on_another_mesh_is_bounded_and_passes_honest(
    fresh: Path, ask, logged, make_keys
) -> None:
    make_keys("alice")
    who = ("--key", "alice", "--operator", "acme")
    code, found = ask("audit", fresh, "--mesh", "data=2", "--samples", "3", *who)
    assert (code, found["method"]) == (0, "bounded")
    assert found["verdict"].endswith("within bounds")
    assert 0 < float.fromhex(found["worst"]["b"]) <= 1
    (audit,) = [said for said in logged(fresh) if isinstance(said, Audit)]
    assert audit.method == "bounded"
    assert audit.environment["class.mesh"] == "data=2,fsdp=1,tensor=1"
    rest = ("--proof", fresh / "run.proof", "--policy", fresh / "policy.toml")
    code, shown = ask("verify", found["resultsFile"], *rest)
    assert (code, shown["results"]["weighed"]) == (0, len(found["steps"]))
    # The same auditor, again: the noise follows from his key and the final record.
    again = ask("audit", fresh, "--mesh", "data=2", "--steps", "3", *who)[1]
    assert (
        again["results"][0]["spreadSeed"]
        == f"{step_seed(int(shown['results']['spreadSeed'], 16), 3):016x}"
    )
    assert ask("verify", found["resultsFile"], *rest[2:])[0] == 2


def test_damaged_log_is_not_audited(fresh: Path, ask) -> None:
    bundles = (fresh / "log" / "tile" / "entries").rglob("*")
    bundle = max((p for p in bundles if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(bundle.read_bytes())
    data[300] ^= 1
    bundle.write_bytes(bytes(data))
    assert ask("audit", fresh)[0] == 1
    assert not (fresh / "audits").exists()


def test_log_whose_operator_let_a_forged_record_in_is_not_audited(
    fresh: Path, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ask("audit", fresh, "--steps", "3")[1]
    with LocalLog.open(fresh / "log") as log:
        said = decode_statement(log.entry(found["indices"][0]).payload)
        forged = encode_statement(dataclasses.replace(said, results_root="0" * 64))
        honest = log.entry(found["indices"][0]).signatures
        # The keys of the log are the trainer's: it can sign a tree that holds anything.
        monkeypatch.setattr(admission, "verify_signatures", lambda *unused: None)
        log.append([Envelope(forged, honest)])
        log.checkpoint()
    monkeypatch.undo()
    code, answer = ask("audit", fresh, "--steps", "3")
    assert code == 1 and "signature" in answer["error"]


def test_changed_step_files_change_nothing(fresh: Path, ask) -> None:
    # The log keeps what was signed; a trainer's own files prove nothing either way.
    (fresh / "steps" / "1-0.jsonl").unlink()
    code, found = ask("audit", fresh, "--samples", "3")
    assert (code, found["checks"]["line"]["verdict"]) == (0, "pass")


def test_final_record_that_is_not_logged_yet_is_named(
    going: Path, key_home: Path, ask, logged
) -> None:
    run(["resume", str(going)])
    final = going / "statements" / "final.json"
    assert any(isinstance(said, Final) for said in logged(going))
    kept = final.read_bytes()
    final.unlink()
    # The log decides whether a run is over.
    assert ask("audit", going, "--steps", "3")[0] == 0
    final.write_bytes(kept)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "0"], "choose some of 1 to 24"),
        (["--steps", "3;7"], "write numbers joined by commas"),
        (["--mesh", "rows=2"], "write sizes of data, fsdp, tensor"),
        (["--mesh", "data=0"], "write sizes of data, fsdp, tensor"),
        (["--samples", "3", "--steps", "3"], "give one of them"),
        (["--intend", "--samples", "3"], "--intend only announces"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    fresh: Path, ask, words: list[str], message: str
) -> None:
    code, answer = ask("audit", fresh, *words)
    assert code == 2 and message in answer["error"]
