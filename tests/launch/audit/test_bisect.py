"""`anh bisect`: the first bad step, the operator in it, and a file that anybody checks."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax import stated_class
from anh_jax.attested_run import run_id
from anh_jax.audit.bisect import most_looks
from anh_jax.audit.leaf import check_operator
from anh_jax.audit.operator import Leaf
from anh_jax.audit.recording import FolderRecording, RecordingWriter, array_of, record
from anh_jax.audit.refutation import refute, signed_parts
from anh_jax.program.interpret import read_stored
from anh_jax.program.interpreter.naming import named_operation
from anh_jax.training.executor import Executor
from anh_jax.training.retained_steps import RetainedSteps
from attest import canonical
from attest.envelope import sign
from attest.merkle import tree_root
from attest.recording import Entry
from launch import bisecting, recordings
from launch.cli import run

STEP = 5
BAD = 41
LONG = 64
HONEST = Executor.update


def corrupt(self: Executor, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
    """Stand in for `Executor.update` on a device that once moves a bias a little too far."""
    after = HONEST(self, state, outputs, scalars, step)
    if step != BAD:
        return after
    parameters = after["parameters"]
    first = min(parameters["layers"])
    bias = parameters["layers"][first]["bias"] * np.float32(1.001)
    layers = {**parameters["layers"], first: {**parameters["layers"][first], "bias": bias}}
    return {**after, "parameters": {**parameters, "layers": layers}}


@pytest.fixture
def other_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine be of another execution class than any trainer."""
    own = stated_class.execution_class
    monkeypatch.setattr(
        stated_class, "execution_class", lambda *a, **k: {**own(*a, **k), "threads": "77"}
    )


@pytest.fixture(scope="module")
def closed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a final run."""
    return trained(config, tmp_path_factory.mktemp("closed") / "run")


@pytest.fixture(scope="module")
def corrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 64 steps of which one moved the parameters a little too far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "update", corrupt)
        root = tmp_path_factory.mktemp("corrupted") / "run"
        return trained(config, root, f"training.steps={LONG}")


@pytest.fixture(scope="module")
def two_devices(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an honest run of the same contract on another mesh."""
    return trained(config, tmp_path_factory.mktemp("two") / "run", "mesh.data=2")


def trained(config: Path, root: Path, *overrides: str) -> Path:
    assert run(["train", str(config), "--run-dir", str(root), *overrides]) == 0
    return root


def show(root: Path, folder: Path, *steps: int) -> None:
    """Write what the trainer of a run has of steps, as `anh replay --out` would."""
    kept = RetainedSteps(folder)
    with bisecting.opened_run(root) as opened:
        search = opened.search
        first = search.first
        assert first is not None
        state = first.state
        for number in range(1, max(steps) + 1):
            bench = search.benches.of(search.transcript.attempts[1])
            outputs = bench.executor.gradient(state, bench.batch(number).pieces)
            scalars = bench.executor.scalars(outputs)
            update = corrupt if root.parent.name.startswith("corrupted") else Executor.update
            state = update(bench.executor, state, outputs, scalars, number)
            if number in steps:
                kept.save(number, outputs, state)


def verified(file: Path) -> dict[str, Any]:
    """Return what a fresh process says of a file that refutes."""
    words = [sys.executable, "-m", "launch", "verify", str(file), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


def faulty_recording(
    root: Path, folder: Path, kind: str = "stablehlo.dot_general", part: str = "gradient"
) -> Path:
    """Record a step on a device that computes one matrix product wrongly, signed all the same."""
    done: list[str] = []

    def fault(visit, inputs, default):
        outputs = default(*inputs)
        if visit.operation.name != kind or done:
            return outputs
        done.append(visit.name)
        return (outputs[0].at[(0,) * outputs[0].ndim].add(jnp.float32(0.01)),)

    with bisecting.opened_run(root) as opened:
        stored = opened.search.benches.materials.programs.stored[part]
        row = opened.search.rows[STEP - 1]
        inputs = recordings._inputs(
            recordings._Step(opened, recordings._before(opened, STEP), part)
        )
        named = {"run": run_id(opened.run), "row": row.row_hash.hex(), "program": stored.id}
        with RecordingWriter(folder) as writer:
            record(read_stored(stored), inputs, writer, fault=fault)
            writer.finish(opened.run.key("run"), step=STEP, **named)
    return folder


@pytest.fixture(scope="module")
def refutation(closed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the refutation of a recording with a faulty operator."""
    folder = tmp_path_factory.mktemp("refuted")
    recording = faulty_recording(closed, folder / "recording")
    words = ["bisect", str(closed), "--recording", str(recording), "--out", str(folder / "file")]
    assert run(words) == 1
    return folder / "file"


def test_one_corrupted_step_of_64_is_found_in_7_looks(corrupted, ask) -> None:
    code, found = ask("bisect", corrupted)
    assert code == 1
    assert (found["first"]["step"], found["first"]["outcome"]) == (BAD, "refuted")
    assert found["first"]["differs"] == ["state root"]
    assert found["looks"] <= most_looks(LONG) == 7
    assert found["stepsExecuted"] <= LONG + 1
    assert len(found["first"]["examples"]) == 48
    assert found["first"]["hosts"] == [{"rank": 0, "start": 0, "stop": 48}]


def test_search_from_a_retained_state_executes_what_lies_between(corrupted, ask) -> None:
    code, found = ask("bisect", corrupted, "--between", "40,48")
    assert code == 1 and found["first"]["step"] == BAD
    assert found["looks"] <= most_looks(8) and found["stepsExecuted"] <= 9


def test_honest_run_follows(closed, ask) -> None:
    code, found = ask("bisect", closed)
    assert (code, found["first"]) == (0, None)


@pytest.fixture(scope="module")
def step_file(corrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the refutation of the corrupted step, from what the trainer shows of it."""
    folder = tmp_path_factory.mktemp("step")
    show(corrupted, folder / "shown", BAD - 1, BAD)
    words = ["bisect", str(corrupted), "--out", str(folder / "file")]
    assert run([*words, "--states", str(folder / "shown"), "--between", f"{BAD - 1},{BAD}"]) == 1
    return folder / "file"


def test_wrong_update_is_a_file_that_a_fresh_process_checks(step_file) -> None:
    found = verified(step_file)
    assert found["refuted"] is True and found["step"] == str(BAD) and found["rule"] == "update"
    assert found["tensor"].endswith("bias") and found["b"] > 1


def test_states_that_are_not_at_hand_are_no_file(corrupted, tmp_path, ask) -> None:
    code, found = ask("bisect", corrupted, "--between", "40,48", "--out", tmp_path / "f")
    assert code == 1 and found["file"] is None and "--states" in found["noFile"]
    assert not (tmp_path / "f").exists()


def test_elsewhere_each_shown_step_is_weighed_until_one_is_refuted(
    corrupted, tmp_path, ask, other_class
) -> None:
    show(corrupted, tmp_path / "s", BAD - 2, BAD - 1, BAD)
    between = ("--between", f"{BAD - 2},{BAD}", "--out", tmp_path / "f")
    code, found = ask("bisect", corrupted, "--states", tmp_path / "s", *between)
    assert code == 1, found
    assert found["first"]["step"] == BAD and found["first"]["outcome"] == "refuted"
    assert (found["stepsJudged"], found["stepsUnattestable"]) == (2, [])
    code, said = ask("verify", tmp_path / "f")
    assert (code, said["refuted"]) == (1, True)


def test_elsewhere_nothing_is_said_of_steps_that_nobody_shows(closed, ask, other_class) -> None:
    code, found = ask("bisect", closed, "--between", "1,4")
    assert code == 2 and found["first"] is None
    assert found["stepsUnattestable"] == [2, 3, 4]


def test_honest_steps_shown_elsewhere_follow_within_bounds(closed, tmp_path, ask, other_class):
    show(closed, tmp_path / "s", 3, 4, 5)
    code, found = ask("bisect", closed, "--states", tmp_path / "s", "--between", "3,5")
    assert (code, found["first"], found["stepsJudged"]) == (0, None, 2), found


def test_two_ordinary_runs_do_not_part(closed, config, tmp_path, ask) -> None:
    other = trained(config, tmp_path / "other")
    code, found = ask("bisect", closed, "--against", other)
    assert (code, found["step"]) == (0, None)


def test_run_of_another_mesh_parts_and_is_not_refuted(closed, two_devices, ask) -> None:
    code, found = ask("bisect", closed, "--against", two_devices)
    assert code == 0 and found["step"] == 1
    assert [side["outcome"] for side in found["runs"]] == ["pass", "pass"]


def test_runs_of_different_contracts_are_said_to_differ(closed, corrupted, ask) -> None:
    code, found = ask("bisect", closed, "--against", corrupted)
    assert code == 1 and "contract" in found["differs"]


def test_no_operator_of_an_honest_recording_is_refuted(closed, two_devices, tmp_path, ask) -> None:
    for number, root in enumerate((closed, two_devices)):
        folder = tmp_path / str(number)
        code, said = ask("bisect", root, "--record-step", STEP, "--out", folder)
        assert code == 0 and said["entries"] > 50
        code, found = ask("bisect", root, "--recording", folder)
        assert (code, found["verdict"]) == (0, "holds"), found


def test_recorded_update_holds_and_a_fault_in_it_is_a_file(closed, tmp_path, ask) -> None:
    words = ("--record-step", STEP, "--of", "update", "--out", tmp_path / "r")
    code, said = ask("bisect", closed, *words)
    assert code == 0 and said["entries"] > 50
    code, found = ask("bisect", closed, "--recording", tmp_path / "r")
    assert (code, found["verdict"]) == (0, "holds"), found
    faulty = faulty_recording(closed, tmp_path / "f", "stablehlo.divide", part="update")
    code, found = ask("bisect", closed, "--recording", faulty, "--out", tmp_path / "file")
    assert (code, found["verdict"]) == (1, "refuted"), found
    code, found = ask("verify", tmp_path / "file")
    assert (code, found["refuted"]) == (1, True)


def test_recording_that_contradicts_itself_is_a_file(closed, tmp_path, ask) -> None:
    assert ask("bisect", closed, "--record-step", STEP, "--out", tmp_path / "r")[0] == 0
    entries = (tmp_path / "r" / "entries.jsonl").read_bytes().splitlines()
    entries[60] = entries[61]
    said = FolderRecording(tmp_path / "r").said
    leaves = [Entry.from_bytes(line).leaf() for line in entries]
    changed = dataclasses.replace(said, root=tree_root(leaves).hex())
    with bisecting.opened_run(closed) as opened:
        envelope = sign(changed.payload(), [opened.run.key("run")])
    (tmp_path / "r" / "recording.json").write_bytes(envelope.to_bytes())
    (tmp_path / "r" / "entries.jsonl").write_bytes(b"\n".join(entries) + b"\n")
    code, found = ask("bisect", closed, "--recording", tmp_path / "r", "--out", tmp_path / "f")
    assert (code, found["verdict"]) == (1, "contradicts")
    code, said = ask("verify", tmp_path / "f")
    assert (code, said["refuted"], said["shows"]) == (1, True, "another order")
    assert ask("inspect", tmp_path / "f")[1]["kind"] == "refutation of a recording"


def test_recording_of_another_run_is_refused(closed, two_devices, tmp_path, ask) -> None:
    assert ask("bisect", closed, "--record-step", 2, "--out", tmp_path / "r")[0] == 0
    code, found = ask("bisect", two_devices, "--recording", tmp_path / "r")
    assert code == 2 and "another run" in found["error"]


def test_third_party_checks_the_file_in_a_fresh_process(refutation) -> None:
    found = verified(refutation)
    assert found["refuted"] is True and found["excess"] > 100
    assert "dot_general" in found["words"] and found["step"] == str(STEP)


def test_changed_claim_is_no_refutation(refutation, tmp_path, ask) -> None:
    value = canonical.decode(refutation.read_bytes(), max_bytes=1 << 25)
    for name, was in value["claim"].items():
        now = was + 1 if isinstance(was, int) else "9" + was[1:] if was[0] != "9" else "8" + was[1:]
        changed = {**value, "claim": {**value["claim"], name: now}}
        (tmp_path / "f").write_bytes(canonical.encode(changed))
        code, found = ask("verify", tmp_path / "f")
        assert code == 2 and "no refutation" in found["error"], name


def test_changed_tensor_or_program_is_no_refutation(refutation, tmp_path, ask) -> None:
    value = canonical.decode(refutation.read_bytes(), max_bytes=1 << 25)
    for name in ("inputs", "outputs"):
        changed = {**value, name: [*reversed(value[name])] if len(value[name]) > 1 else []}
        (tmp_path / "f").write_bytes(canonical.encode(changed))
        assert ask("verify", tmp_path / "f")[0] == 2, name
    for name in ("artifact", "signature"):
        (tmp_path / "f").write_bytes(canonical.encode({**value, name: value["outputs"][0]}))
        assert ask("verify", tmp_path / "f")[0] == 2, name


def test_file_about_an_honest_operator_is_no_refutation(closed, tmp_path, ask) -> None:
    assert ask("bisect", closed, "--record-step", STEP, "--out", tmp_path / "r")[0] == 0
    recording = FolderRecording(tmp_path / "r")
    with bisecting.opened_run(closed) as opened:
        materials = opened.search.benches.materials
        stored = materials.programs.stored["gradient"]
        program = read_stored(stored).program
        index, entry = next(
            (i, e)
            for i, e in enumerate(recording.entries)
            if named_operation(program, e.name).name == "stablehlo.dot_general"
        )
        sides = [
            tuple(recording.value(digest) for digest in side)
            for side in (entry.inputs, entry.outputs)
        ]
        found = check_operator(
            program,
            named_operation(program, entry.name),
            *[[array_of(value) for value in side] for side in sides],
            rules=materials.contract.numerics.rules,
            backend="cpu",
        )
        assert found.accepted
        leaf = Leaf(index, entry, "stablehlo.dot_general", *sides, found)
        signed = signed_parts(opened.run, opened.search.rows[STEP - 1], recording.envelope)
        file = refute(signed, stored, recording, leaf)
    (tmp_path / "f").write_bytes(file.to_bytes())
    code, said = ask("verify", tmp_path / "f")
    assert (code, said["refuted"]) == (0, False)
    # Nor does a louder claim make it one.
    loud = dataclasses.replace(file, claim=dataclasses.replace(file.claim, excess="5.0e+03"))
    (tmp_path / "f").write_bytes(loud.to_bytes())
    assert ask("verify", tmp_path / "f")[0] == 2


def test_inspect_knows_refutations(refutation, step_file, ask) -> None:
    for file, kind in ((refutation, "refutation"), (step_file, "refutation of an update")):
        code, found = ask("inspect", file)
        assert (code, found["kind"]) == (0, kind)


def test_file_of_another_format_is_no_refutation(step_file, tmp_path, ask) -> None:
    value = canonical.decode(step_file.read_bytes(), max_bytes=1 << 25)
    for form in ("anh refutation v1", "anh init refutation v1", "anh step refutation v2", 7):
        (tmp_path / "f").write_bytes(canonical.encode({**value, "format": form}))
        code, found = ask("verify", tmp_path / "f")
        assert code == 2 and "no refutation" in found["error"], form


@pytest.mark.parametrize(
    "words",
    [
        ("--against", "x", "--record-step", "1"),
        ("--record-step", "1"),
        ("--against", "x", "--states", "y"),
        ("--show", "main/1"),
        ("--between", "x"),
    ],
)
def test_words_that_do_not_go_together_are_refused(closed, words, ask) -> None:
    assert ask("bisect", closed, *words)[0] == 2
