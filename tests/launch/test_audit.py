"""`anh audit` end to end, on a small real run: announce, re-execute, sign, prove, verify."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.training.executor import Executor
from attest.log.sequencer import LocalLog
from attest.policy import load_policy
from attest.statements import Audit, Final, Intent, Nonce, Property, decode_statement
from launch.cli import run
from launch.runner_local import LocalReporter

# Before any test asks jax for its devices: a mesh of two needs two, and one process has one pool.
if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)

STEPS = 24
CONFIG = f"""
model: {{name: mlp, hidden: [16], classes: 10}}
data: {{name: digits, holdout: {{fraction: 0.2}}}}
loss: {{name: softmax_cross_entropy}}
optimizer: {{name: adamw, learning_rate: 1e-2, weight_decay: 0.01}}
training: {{steps: {STEPS}, batch_size: 48, seed: 5}}
properties: [{{name: accuracy, numerator: 1, denominator: 2, margin: 3}}]
checkpoints: {{every_steps: 8, keep: 9}}
"""


def stop_after(step: int) -> pytest.MonkeyPatch:
    """Let the next training stop after a step, as Ctrl-C does; undo it afterwards."""
    patch = pytest.MonkeyPatch()
    asked = []

    def should_stop(self: LocalReporter) -> bool:
        asked.append(step)
        self.stopped = len(asked) == step
        return self.stopped

    patch.setattr(LocalReporter, "should_stop", should_stop)
    return patch


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def halfway(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was stopped after step 13; step 9 on will be taken again."""
    root = tmp_path_factory.mktemp("halfway") / "run"
    patch = stop_after(13)
    try:
        assert run(["train", str(config), "--run-dir", str(root)]) == 130
    finally:
        patch.undo()
    shutil.rmtree(root / "checkpoints" / "step_13")
    return root


@pytest.fixture(scope="module")
def closed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a final run that nobody has audited."""
    root = tmp_path_factory.mktemp("closed") / "run"
    assert run(["train", str(config), "--run-dir", str(root)]) == 0
    return root


@pytest.fixture
def fresh(closed: Path, tmp_path: Path, key_home: Path) -> Path:
    """Return a copy of the final run, to audit."""
    return Path(shutil.copytree(closed, tmp_path / "run"))


@pytest.fixture
def going(halfway: Path, tmp_path: Path, key_home: Path) -> Path:
    """Return a copy of the run that was stopped halfway."""
    return Path(shutil.copytree(halfway, tmp_path / "run"))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs a command and gives its exit code and JSON answer."""

    def asked(*words: Any) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return asked


def logged(root: Path) -> list[Any]:
    with LocalLog.open(root / "log") as log:
        return [decode_statement(envelope.payload) for envelope in log.entries(0, log.size)]


def make_keys(*names: str) -> None:
    for name in names:
        assert run(["key", "new", name]) == 0


def naming(root: Path, path: Path, *more: str) -> Path:
    """Write a policy that takes the run's log and names other operators beside."""
    own = load_policy(root / "policy.toml")
    witness = f"{own.witnesses[0].key.to_text()}=w.example"
    arguments = ["--like", str(root / "policy.toml"), "--witness", witness, *more]
    assert run(["policy", "new", str(path), *arguments]) == 0
    return path


def test_announced_audit_by_a_foreign_operator_makes_a_run_sampled(
    going: Path, key_home: Path, tmp_path: Path, ask
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
    assert {check["verdict"] for check in found["checks"].values()} == {"pass"}
    assert found["secondsPerStep"] < 20

    assert (
        run(["monitor", str(going), "--once", "--key", "watch", "--operator", "eye.example"]) == 0
    )
    assert run(["prove", str(going)]) == 0
    mine = naming(
        going, tmp_path / "mine.toml", "--auditor", "alice=acme", "--monitor", "watch=eye.example",
        "--level", "sampled", "--property", "accuracy=1",
    )  # fmt: skip
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


def test_receipt_in_the_log_opens_with_the_results_file(fresh: Path, ask) -> None:
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


def test_intent_comes_before_the_final_record(fresh: Path, ask) -> None:
    make_keys("alice")
    code, answer = ask("audit", fresh, "--intend", "--key", "alice", "--operator", "acme")
    assert code == 2 and "an intent comes before" in answer["error"]
    assert not any(isinstance(said, Intent) for said in logged(fresh))


def test_second_intent_of_a_key_is_the_first(going: Path, key_home: Path, ask) -> None:
    make_keys("alice")
    words = ("audit", going, "--intend", "--key", "alice", "--operator", "acme")
    first, again = ask(*words)[1], ask(*words)[1]
    assert (first["intent"], again["nonce"]) == (again["intent"], None)
    assert sum(isinstance(said, Intent) for said in logged(going)) == 1


def test_lost_nonce_is_named_and_no_other_sample_is_drawn(going: Path, key_home: Path, ask) -> None:
    make_keys("alice")
    who = ("--key", "alice", "--operator", "acme")
    nonce = Path(ask("audit", going, "--intend", *who)[1]["nonce"])
    run(["resume", str(going)])
    nonce.rename(nonce.with_suffix(".away"))
    code, answer = ask("audit", going, *who)
    assert code == 2 and "does not hold the nonce of your intent" in answer["error"]
    nonce.write_text("0" * 64)
    assert ask("audit", going, *who)[0] == 2
    assert not any(isinstance(said, Audit) for said in logged(going))


def test_sources_of_a_policy_wait_for_each_other(
    going: Path, key_home: Path, tmp_path: Path, ask
) -> None:
    make_keys("alice", "bob")
    for name in ("alice", "bob"):
        who = ("--key", name, "--operator", f"{name}.example")
        assert ask("audit", going, "--intend", *who)[0] == 0
    run(["resume", str(going)])
    mine = naming(going, tmp_path / "mine.toml", "--auditor", "alice=alice.example",
                  "--auditor", "bob=bob.example")  # fmt: skip
    keys = [entry.public.hex() for entry in load_policy(mine).keys if entry.role.value == "auditor"]
    mine.write_text(mine.read_text() + f"\n[sample]\nsources = {json.dumps(keys)}\n")
    code, answer = ask("audit", going, "--key", "alice", "--policy", mine)
    assert code == 2 and "bob.example, who has not revealed a nonce yet" in answer["error"]
    assert sum(isinstance(said, Nonce) for said in logged(going)) == 1
    bob = ask("audit", going, "--key", "bob", "--policy", mine, "--samples", "5")[1]
    alice = ask("audit", going, "--key", "alice", "--policy", mine, "--samples", "5")[1]
    assert alice["sources"] == bob["sources"] == ["alice.example", "bob.example"]
    assert alice["steps"] == bob["steps"]


def test_source_that_announced_nothing_is_named(
    fresh: Path, key_home: Path, tmp_path: Path, ask
) -> None:
    make_keys("alice", "bob")
    mine = naming(fresh, tmp_path / "mine.toml", "--auditor", "alice=a.example",
                  "--auditor", "bob=b.example")  # fmt: skip
    bob = next(e for e in load_policy(mine).keys if e.operator == "b.example").public.hex()
    mine.write_text(mine.read_text() + f'\n[sample]\nsources = ["{bob}"]\n')
    code, answer = ask("audit", fresh, "--key", "alice", "--policy", mine)
    assert code == 2 and "b.example, who announced no audit before the final" in answer["error"]


def test_key_needs_an_operator_that_the_policy_agrees_with(
    fresh: Path, key_home: Path, tmp_path: Path, ask
) -> None:
    make_keys("alice", "carol")
    assert "--key needs --operator" in ask("audit", fresh, "--key", "alice")[1]["error"]
    assert "--operator names" in ask("audit", fresh, "--operator", "acme")[1]["error"]
    mine = naming(fresh, tmp_path / "mine.toml", "--auditor", "alice=acme")
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


def test_audit_on_another_mesh_is_preliminary_and_passes_honest(
    fresh: Path, key_home: Path, tmp_path: Path, ask
) -> None:
    make_keys("alice")
    who = ("--key", "alice", "--operator", "acme")
    code, found = ask("audit", fresh, "--mesh", "data=2", "--samples", "3", *who)
    assert (code, found["method"]) == (0, "preliminary")
    assert found["verdict"].endswith("within bounds (preliminary)")
    assert 0 < float.fromhex(found["worst"]["b"]) <= 1
    (audit,) = [said for said in logged(fresh) if isinstance(said, Audit)]
    assert audit.method == "preliminary"
    assert audit.environment["class.mesh"] == "data=2,fsdp=1,tensor=1"


def test_damaged_log_is_not_audited(fresh: Path, ask) -> None:
    bundles = (fresh / "log" / "tile" / "entries").rglob("*")
    bundle = max((p for p in bundles if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(bundle.read_bytes())
    data[300] ^= 1
    bundle.write_bytes(bytes(data))
    assert ask("audit", fresh)[0] == 1
    assert not (fresh / "audits").exists()


def test_changed_step_files_change_nothing(fresh: Path, ask) -> None:
    # The log keeps what was signed; a trainer's own files prove nothing either way.
    (fresh / "steps" / "1-0.jsonl").unlink()
    code, found = ask("audit", fresh, "--samples", "3")
    assert (code, found["checks"]["line"]["verdict"]) == (0, "pass")


def test_final_record_that_is_not_logged_yet_is_named(going: Path, key_home: Path, ask) -> None:
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
