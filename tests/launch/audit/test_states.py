"""Replays on demand, end to end: states as files or served, and audits that use them."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anh_jax.training.executor import Executor
from attest.keys import PrivateKey
from attest.served_tree import ServedTensor, ShownTree, TreeClaim, TreeManifest
from launch import replaying
from launch.cli import run

STEPS = 24
_URL = re.compile(r"http://\S+")


@pytest.fixture(scope="module")
def served(closed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a process that serves the states of the closed run."""
    with serving(closed) as process:
        yield process.url
        process.send_signal(signal.SIGINT)
        # Ctrl-C is how it ends.
        assert process.wait(timeout=30) == 130


class Serving(subprocess.Popen[str]):
    """A process that serves; `url` is where."""

    url = ""


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Serving]:
    command = [sys.executable, "-m", "launch", "replay", str(root), "--serve", "--port", "0"]
    environment = {**os.environ, "XLA_FLAGS": ""}
    with Serving(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if match := _URL.search(line):
                process.url = match[0]
                break
        try:
            assert process.url
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def bare(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return what an auditor has of the closed run: no checkpoints, no step files' states."""
    shutil.rmtree(fresh / "checkpoints")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fresh


@pytest.fixture(scope="module")
def written(closed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "out"
    for step in (11, STEPS):
        assert run(["replay", str(closed), "--step", str(step), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def handed_over(written: Path, tmp_path: Path) -> Path:
    """Return a folder with the states of step 11 and of the last step."""
    return Path(shutil.copytree(written, tmp_path / "out"))


def test_replay_gives_the_signed_numbers(closed: Path, ask, capsys) -> None:
    code, said = ask("replay", closed, "--step", 11)
    assert (code, said["differs"]) == (0, [])
    assert {"batch root", "gradient root", "state root", "loss"} <= said["numbers"].keys()
    assert all(pair["replayed"] == pair["signed"] for pair in said["numbers"].values())
    assert run(["replay", str(closed), "--step", "11"]) == 0
    assert "every number is as signed" in capsys.readouterr().out


def test_run_that_goes_on_can_be_replayed(going: Path, ask) -> None:
    assert ask("replay", going, "--step", 12)[0] == 0
    code, said = ask("replay", going, "--step", 14)
    assert code == 2 and "has signed 13 steps" in said["error"]


def test_step_that_comes_out_otherwise_is_not_handed_over(
    fresh: Path, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Executor.gradient

    def other(self: Executor, state: Any, pieces: Any) -> Any:
        outputs = honest(self, state, pieces)
        return {**outputs, "gradient": scaled(outputs["gradient"])}

    def scaled(tree: Any) -> Any:
        return {k: scaled(v) if isinstance(v, dict) else v * 2 for k, v in tree.items()}

    monkeypatch.setattr(Executor, "gradient", other)
    # Step 9 follows the training checkpoint of step 8: nothing before it is replayed.
    code, said = ask("replay", fresh, "--step", 9)
    assert code == 1 and said["differs"][0] == "gradient root"
    code, said = ask("replay", fresh, "--step", 9, "--out", tmp_path / "out")
    assert code == 1 and "does not reproduce what was signed" in said["error"]
    assert not list(tmp_path.glob("out/*"))


def test_files_hold_no_key_and_another_runs_folder_is_refused(
    handed_over: Path, closed: Path, config: Path, ask, tmp_path: Path
) -> None:
    secrets = [path.read_bytes() for path in (closed / "keys").iterdir()]
    held = [path.read_bytes() for path in handed_over.iterdir()]
    assert secrets and not any(secret in data for secret in secrets for data in held)
    index = json.loads((handed_over / "replay.json").read_text())
    assert index["steps"] == [11, STEPS]
    (handed_over / "replay.json").write_text(
        json.dumps({**index, "run": "0" * 64}, sort_keys=True, separators=(",", ":"))
    )
    code, said = ask("replay", closed, "--step", 3, "--out", handed_over)
    assert code == 2 and "of another run" in said["error"]


def test_run_without_checkpoints_is_audited_from_files(bare: Path, handed_over, ask) -> None:
    code, found = ask("audit", bare, "--steps", f"11,{STEPS}", "--states", handed_over)
    assert (code, found["verdict"], found["evidence"]) == (0, "passed: 2 of 2 steps", [])
    assert not (bare / "checkpoints").exists()


def test_last_state_that_is_not_shown_leaves_the_export_unchecked_and_says_so(
    bare: Path, handed_over: Path, ask
) -> None:
    for path in handed_over.glob(f"{STEPS}.*"):
        path.unlink()
    code, found = ask("audit", bare, "--steps", "11", "--states", handed_over)
    why = f"state {STEPS}: {STEPS}.safetensors is not in the folder"
    assert (code, found["verdict"]) == (
        2,
        "not refuted, and not covered: 1 of 1 steps passed; not checked: export (the final state "
        f"could not be produced: {why})",
    )


def test_run_without_checkpoints_is_audited_from_a_server(bare: Path, served: str, ask) -> None:
    code, found = ask("audit", bare, "--steps", "11,18", "--states", served)
    assert (code, found["verdict"], found["evidence"]) == (0, "passed: 2 of 2 steps", [])
    assert {check["verdict"] for name, check in found["checks"].items() if name != "walk"} == {
        "pass"
    }


def test_step_that_is_not_shown_fails_the_audit_with_evidence(
    bare: Path, handed_over: Path, ask, tmp_path: Path
) -> None:
    code, found = ask("audit", bare, "--steps", "5,11", "--states", handed_over)
    assert code == 1 and found["counts"]["withheld"] == 1
    (path,) = found["evidence"]
    policy = ("--policy", bare / "policy.toml")
    code, said = ask("verify", path, *policy)
    assert code == 1 and said["withheld"] == ["state 4: 4.safetensors is not in the folder"]
    code, said = ask("verify", path)
    assert code == 2 and "auditor's word" in said["error"]
    text = Path(path).read_text().replace("state 4", "state 5")
    (tmp_path / "changed.json").write_text(text)
    code, said = ask("verify", tmp_path / "changed.json", *policy)
    assert code == 2 and "does not verify" in said["error"]
    assert run(["inspect", path]) == 0


def test_damaged_file_is_named_down_to_the_tensor(bare: Path, handed_over: Path, ask) -> None:
    path = handed_over / "10.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    code, found = ask("audit", bare, "--steps", "11", "--states", handed_over)
    assert code == 1
    assert re.search(r"10.safetensors is not the committed one: \S+", found["verdict"])


def test_states_of_another_run_are_withheld_and_refute_nothing(
    bare: Path, config: Path, ask, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    changed = ("training.seed=6", "training.steps=11")
    run(["train", str(config), "--run-dir", str(other), *changed])
    assert run(["replay", str(other), "--step", "11", "--out", str(tmp_path / "theirs")]) == 0
    code, found = ask("audit", bare, "--steps", "11", "--states", tmp_path / "theirs")
    assert code == 1 and found["counts"] == {**found["counts"], "withheld": 1, "refuted": 0}
    assert "it is of run" in found["results"][0]["words"]


def test_other_state_under_the_run_key_is_evidence_that_needs_nobodys_word(
    bare: Path, handed_over: Path, ask
) -> None:
    key = PrivateKey.load(bare / "keys" / "run")
    path = handed_over / "10.state.json"
    shown = ShownTree.from_bytes(path.read_bytes())
    first, *rest = shown.manifest.tensors
    manifest = TreeManifest(
        **{
            name: getattr(shown.manifest, name)
            for name in ("run", "row", "part", "step", "alg", "structure")
        },
        tensors=(ServedTensor(first.header, b"x" * 32), *rest),
    )
    claim: TreeClaim = manifest.claim(replaying.level_hash("blake3"))
    path.write_bytes(ShownTree(manifest, claim.sign(key)).to_bytes())
    code, found = ask("audit", bare, "--steps", "11", "--states", handed_over)
    assert code == 3 and found["counts"]["refuted"] == 1
    code, said = ask("verify", found["evidence"][0])
    assert (code, said["root"]) == (3, claim.root)
    assert run(["inspect", found["evidence"][0]]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "3", "--step", "4"], "name one step"),
        ([], "name one step"),
        (["--port", "9", "--step", "3"], "goes with --serve"),
        (["--serve", "--pdb"], "go without it"),
        (["--step", "99"], "has signed 24 steps"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(closed: Path, ask, words, said: str) -> None:
    code, answer = ask("replay", closed, *words)
    assert code == 2 and said in answer["error"]


@pytest.mark.parametrize("states", ["nowhere", "ftp://host", "http://", "http://h:x"])
def test_states_that_are_neither_folder_nor_url_are_one_line(bare, ask, states: str) -> None:
    code, answer = ask("audit", bare, "--steps", "3", "--states", states)
    assert code == 2 and f"--states {states}" in answer["error"]


def test_debugger_stops_before_the_step(closed: Path) -> None:
    def debug(typed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launch", "replay", str(closed), "--step", "9", "--pdb"]
        return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=120)

    done = debug("p step, row.step, sorted(state), len(batch.pieces), sorted(programs)\nc\n")
    assert done.returncode == 0 and "(9, 9, ['key', 'optimizer', 'parameters'" in done.stdout
    assert "every number is as signed" in done.stdout
    assert debug("q\n").returncode == 130
