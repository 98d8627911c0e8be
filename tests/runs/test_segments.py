"""Whole runs whose log holds segments: the same rows and final, audited from the step files."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anh_jax.attested_run import run_id
from anh_jax.experiment import load_experiment
from anh_jax.line import Line, signed_segments
from anh_jax.own_loop import open_run
from anh_jax.preparation import prepare
from anh_jax.run_directory import RunDirectory
from attest.envelope import sign
from attest.equivocation import check_row_evidence
from attest.log import admission
from attest.log.sequencer import LocalLog
from attest.merkle import inclusion_path, leaf_hash, root_from_inclusion
from attest.statements import (
    Final,
    Segment,
    Statement,
    Step,
    decode_statement,
    encode_statement,
)
from attest.step_file import StepFile, read
from launch import logs
from launch.cli import run as run_anh
from launch.runner_local import LocalReporter

Told = Callable[[RunDirectory], Line]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the next training be asked to stop at a step, as Ctrl-C does."""
    asked: list[int] = []

    def should_stop(self: LocalReporter) -> bool:
        asked.append(step)
        self.stopped = len(asked) >= step
        return len(asked) == step

    monkeypatch.setattr(LocalReporter, "should_stop", should_stop)


def begun_again(of: RunDirectory, root: Path) -> RunDirectory:
    """Return a copy of a run in which nothing but contract, genesis and their keys is left."""
    shutil.copytree(of.root, root)
    for name in ("steps", "log", "checkpoints", "export"):
        shutil.rmtree(root / name)
        (root / name).mkdir()
    for path in (*root.glob("statements/attempt-*"), *root.glob("keys/worker-*")):
        path.unlink()
    # The log's keys go too: a log begun anew under its old ones would tell two histories.
    kept = ("statements/final.json", "run.proof", "metrics.jsonl", "keys/log", "keys/witness")
    for name in kept:
        (root / name).unlink()
    return RunDirectory.open(root)


def logged(run: RunDirectory) -> list[Statement]:
    with LocalLog.open(run.log) as log:
        return [decode_statement(envelope.payload) for envelope in log.entries(0, log.size)]


def spans(run: RunDirectory) -> list[tuple[int, int]]:
    """Return first and last step of the segments in a run's log; it holds no step."""
    said = logged(run)
    assert not any(isinstance(statement, Step) for statement in said)
    return [(s.first, s.last) for s in said if isinstance(s, Segment)]


def final_of(run: RunDirectory) -> Final:
    final = decode_statement(run.statement("final").payload)
    assert isinstance(final, Final)
    return final


def verified(run: RunDirectory) -> bool:
    proof, policy = run.root / "run.proof", run.root / "policy.toml"
    return run_anh(["verify", str(proof), "--policy", str(policy)]) == 0


@pytest.fixture(scope="session")
def segmented(finished: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return the run `finished` taken anew from its genesis, its log holding segments."""
    run = begun_again(finished, tmp_path_factory.mktemp("segmented") / "run")
    assert run_anh(["resume", str(run.root), "attest.segments=every 5"]) == 0
    return run


@pytest.fixture
def copy(segmented: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(segmented.root, tmp_path / "run")))


def test_what_is_logged_changes_no_byte_of_a_row_and_no_final(
    finished: RunDirectory, segmented: RunDirectory, line_of: Told
) -> None:
    ours, theirs = line_of(segmented), line_of(finished)
    assert [s.row.to_bytes() for s in ours.rows] == [s.row.to_bytes() for s in theirs.rows]
    # One run, two logs: the final record is the same to the last byte of its payload.
    assert segmented.statement("final").record_hash() == finished.statement("final").record_hash()


def test_segments_end_when_full_at_every_checkpoint_and_at_the_last_step(
    segmented: RunDirectory,
) -> None:
    assert spans(segmented) == [(1, 5), (6, 8), (9, 13), (14, 16), (17, 21), (22, 24)]
    assert verified(segmented)


def test_audit_reads_the_rows_that_segments_commit(copy: RunDirectory, capsys: Any) -> None:
    assert run_anh(["audit", str(copy.root), "--samples", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {name: check["verdict"] for name, check in found["checks"].items()}
    # Every bit is equal, so no update was weighed that could show a walk.
    assert verdicts.pop("walk") == "not checked"
    assert set(verdicts.values()) == {"pass"}
    assert found["counts"]["pass"] == len(found["steps"])
    assert run_anh(["monitor", str(copy.root), "--once"]) == 0
    assert run_anh(["prove", str(copy.root)]) == 0
    assert verified(copy)


def test_rows_that_are_gone_are_withheld_by_name_and_refute_nothing(
    copy: RunDirectory, capsys: Any
) -> None:
    path = copy.step_file(attempt=1, rank=0)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:20]))
    assert run_anh(["audit", str(copy.root), "--steps", "3", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["checks"]["line"]["verdict"] == "not checked"
    assert "segment of steps 17 to 21" in found["checks"]["line"]["words"]
    assert found["verdict"].startswith("FAILED: 1 of 1 steps withheld")
    assert found["counts"] == {"pass": 0, "refuted": 0, "unattestable": 0, "withheld": 1}


def test_rows_signed_otherwise_than_their_segment_are_equivocation(
    copy: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    # A trainer who shows an auditor other rows than the log's, under the worker's own key.
    path, key = copy.step_file(attempt=1, rank=0), copy.key("worker-1-0")
    rows = list(read(path))
    statement = decode_statement(rows[23].payload)
    assert isinstance(statement, Step)
    other = dataclasses.replace(statement.row, bound="0x1.0000000000000p+0")
    rows[23] = sign(encode_statement(Step(statement.attempt, other)), [key])
    path.unlink()
    with StepFile(path) as file:
        for envelope in rows:
            file.append(envelope)
    assert run_anh(["audit", str(copy.root), "--steps", "3", "--json"]) == 3
    assert "its first worker signed both" in json.loads(capsys.readouterr().out)["error"]
    (evidence,) = (tmp_path / "home" / "evidence").glob("*.json")
    assert "row 24 is another" in check_row_evidence(evidence.read_bytes(), run_id(copy))


def test_a_step_logged_beside_a_segment_that_has_another_row_is_equivocation(
    copy: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    rows = list(read(copy.step_file(attempt=1, rank=0)))
    statement = decode_statement(rows[2].payload)
    assert isinstance(statement, Step)
    # Inside the segment of steps 1 to 5: neither the log nor a monitor can tell by its root.
    other = dataclasses.replace(statement.row, bound="0x1.0000000000000p+0")
    envelope = sign(encode_statement(Step(statement.attempt, other)), [copy.key("worker-1-0")])
    with monkeypatch.context() as patch:
        patch.setattr(admission, "misplaced", lambda place, entry: None)
        patch.setattr(logs, "fsck", lambda folder: None)
        with LocalLog.open(copy.log) as log:
            log.append([envelope])
        assert run_anh(["audit", str(copy.root), "--steps", "3", "--json"]) == 3
    assert "step 3: the log holds another row" in json.loads(capsys.readouterr().out)["error"]
    (evidence,) = (tmp_path / "home" / "evidence").glob("*.json")
    words = check_row_evidence(evidence.read_bytes(), run_id(copy))
    assert words == "two rows are signed for step 3"


def test_interrupted_run_goes_on_from_its_segment_to_the_same_final(
    finished: RunDirectory, tmp_path: Path, line_of: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun_again(finished, tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 11)
        assert run_anh(["resume", str(run.root), "attest.segments=every 5"]) == 130
    assert spans(run) == [(1, 5), (6, 8), (9, 11)]
    assert run_anh(["resume", str(run.root), "attest.segments=every 100"]) == 0
    assert spans(run) == [(1, 5), (6, 8), (9, 11), (12, 16), (17, 24)]
    ours, theirs = final_of(run), final_of(finished)
    assert (ours.state_root, ours.files, ours.line) == (
        theirs.state_root,
        theirs.files,
        theirs.line,
    )
    attempt = decode_statement(run.statement("attempt-2").payload)
    third = [found for found in signed_segments(run) if found.segment.last == 11]
    assert getattr(attempt, "resumed_from", "") == third[0].record
    assert verified(run)
    assert run_anh(["audit", str(run.root), "--samples", "2"]) == 0


def test_logged_kind_may_change_at_resume(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun_again(finished, tmp_path / "run")
    for step, segments in ((9, "every 4"), (6, "off")):
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            assert run_anh(["resume", str(run.root), f"attest.segments={segments}"]) == 130
    shutil.rmtree(run.checkpoints / "step_15")
    # The steps after the lost checkpoint are taken again, from a segment's last row.
    assert run_anh(["resume", str(run.root), "attest.segments=every 4"]) == 0
    kinds = [
        (s.first, s.last) if isinstance(s, Segment) else s.row.step
        for s in logged(run)
        if isinstance(s, Segment | Step)
    ]
    last = [(10, 13), (14, 16), (17, 20), (21, 24)]
    assert kinds == [(1, 4), (5, 8), (9, 9), *range(10, 16), *last]
    assert verified(run)
    assert run_anh(["audit", str(run.root), "--samples", "2"]) == 0


def test_checkpoint_and_stop_wait_for_a_state_root(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(small)
    changes = ("attest.digest=every 4", "attest.segments=every 1")
    stop_after(monkeypatch, 5)
    root = tmp_path / "run"
    assert run_anh(["train", str(config), *changes, "--run-dir", str(root)]) == 130
    run = RunDirectory.open(root)
    assert spans(run) == [(1, 4), (5, 8)]
    assert {path.name for path in run.checkpoints.glob("step_*")} == {"step_8"}
    monkeypatch.undo()
    assert run_anh(["resume", str(root)]) == 0
    assert spans(run)[2:] == [(9, 12), (13, 16), (17, 20), (21, 24)]
    assert verified(run)


def test_killed_run_goes_on_from_a_segment_and_leaves_its_open_rows_where_they_are(
    finished: RunDirectory, config: Path, anh: Any, wait_for: Any, steps_taken: Any, end: Any,
    line_of: Told, facts: Any,
) -> None:  # fmt: skip
    root = anh.folder / "killed"
    slow = ("evaluation.every_steps=1", "attest.segments=every 100")
    process = anh.start("train", str(config), *slow, "--run-dir", "killed")
    saved = root / "checkpoints" / "step_8"
    wait_for(lambda: steps_taken(root) >= 12 and saved.exists(), process, 200)
    end(process, signal.SIGKILL)
    run = RunDirectory.open(root)
    taken = sum(1 for _ in read(run.step_file(attempt=1, rank=0)))
    assert 12 <= taken < 24
    assert run_anh(["resume", str(root)]) == 0
    kept = spans(run)
    assert kept[0] == (1, 8) and kept[-1] == (17, 24)
    assert [facts(s.row) for s in line_of(run).rows] == [
        facts(s.row) for s in line_of(finished).rows
    ]
    # What no segment of the killed attempt committed is in its step file alone.
    first = [found.segment for found in signed_segments(run) if found.attempt == 1]
    assert {segment.last for segment in first} <= {8, 16} and first[-1].last <= taken
    assert line_of(run).stale
    assert verified(run)
    assert run_anh(["audit", str(root), "--samples", "2"]) == 0


def test_own_loop_logs_segments_too(small: str, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(small)
    changes = ["attest.segments=every 4", "training.steps=6", "plan.kind=native"]
    own = open_run(prepare(load_experiment(config, changes)), tmp_path / "own")
    bench, state = own._bench, own.initial_state
    for step in own.steps:
        outputs = bench.executor.gradient(state, bench.batch(step).pieces)
        scalars = bench.executor.scalars(outputs)
        state = bench.executor.update(state, outputs, scalars, step)
        own.step(step, gradient=outputs["gradient"], state=state, loss=outputs["loss"])
    own.finish()
    assert run_anh(["prove", str(own.directory)]) == 0
    run = RunDirectory.open(own.directory)
    assert spans(run) == [(1, 4), (5, 6)]
    assert verified(run)


def test_commands_name_the_segment_of_a_step(segmented: RunDirectory, capsys: Any) -> None:
    capsys.readouterr()
    assert run_anh(["show", str(segmented.root), "--step", "10", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["segment"]
    found = next(f for f in signed_segments(segmented) if f.segment.last == 13)
    assert (shown["record"], shown["first"], shown["last"]) == (found.record, 9, 13)
    with LocalLog.open(segmented.log) as log:
        assert log.index_of(bytes.fromhex(shown["record"])) is not None
    assert run_anh(["show", str(segmented.root), "--step", "10"]) == 0
    assert f"{found.record} (steps 9 to 13)" in capsys.readouterr().out
    assert run_anh(["inspect", str(segmented.segment_file(attempt=1))]) == 0
    told = capsys.readouterr().out
    assert "segment file" in told and "1 to 24" in told


def test_a_row_inside_a_segment_is_opened_by_its_path_to_the_final(
    segmented: RunDirectory, tmp_path: Path, line_of: Told
) -> None:
    hashes = [leaf_hash(row) for row in line_of(segmented).hashes]
    committed = final_of(segmented).line
    for step in (10, 11, 12):
        path = inclusion_path(step, len(hashes), hashes)
        root = root_from_inclusion(step, committed.count, hashes[step], path)
        assert root.hex() == committed.root
    tile, proof = tmp_path / "tile.json", str(segmented.root / "run.proof")
    asked = ["--step", "16", "--tensor", "parameters/layers/0/bias", "--tile", "0"]
    assert run_anh(["open", str(segmented.root), *asked, "--output", str(tile)]) == 0
    policy = ["--policy", str(segmented.root / "policy.toml")]
    assert run_anh(["verify", str(tile), *policy, "--proof", proof]) == 0


def test_monitor_of_a_log_with_two_stories_keeps_the_evidence(
    copy: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("ANH_HOME", str(tmp_path / "home"))
    first = next(signed_segments(copy)).segment
    other = dataclasses.replace(first, last=6)
    envelope = sign(encode_statement(other), [copy.key("worker-1-0")])
    with monkeypatch.context() as patch, LocalLog.open(copy.log) as log:
        patch.setattr(admission, "misplaced", lambda place, entry: None)
        log.append([envelope])
        log.checkpoint()
    assert run_anh(["monitor", str(copy.root), "--once", "--json"]) == 3
    (signed,) = json.loads(capsys.readouterr().out)["statuses"]
    assert "two segments commit step 1" in signed["twoStories"][0]
    (evidence,) = (tmp_path / "home" / "evidence").glob("*.json")
    assert "two segments" in check_row_evidence(evidence.read_bytes(), run_id(copy))
    # With such a status nobody takes the run, whose proof holds nothing of this.
    assert run_anh(["prove", str(copy.root)]) == 0
    capsys.readouterr()
    assert not verified(copy)
    assert "omissions: the proof leaves out the conflict" in capsys.readouterr().err
