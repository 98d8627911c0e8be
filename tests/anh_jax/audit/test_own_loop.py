"""An own loop shows what it kept: steps lie within bounds, and files count by digest alone."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anh_jax.own_loop as own_loop
from anh_jax.errors import AnhError
from anh_jax.experiment import load_experiment
from anh_jax.line import signed_rows
from anh_jax.run_directory import RunDirectory

STEP = 10
Run = Callable[..., RunDirectory]


def reversed_rows(piece: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the same examples in another order: the same sums, rounded otherwise."""
    return {name: array[::-1] for name, array in piece.items()}


def same_rows(piece: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return piece


@pytest.fixture(scope="module")
def loop(trainers: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a loop of its own under the workshop's contract."""
    config = tmp_path_factory.mktemp("native") / "config.yaml"
    config.write_text(trainers.CONFIG)
    experiment = load_experiment(config, ("plan.kind=native",))
    prepared = dataclasses.replace(workshop.prepared, experiment=experiment)

    def run(
        *, rows: Any = reversed_rows, fault: Any = None, retain_bytes: int | None = None
    ) -> RunDirectory:
        fault = fault or trainers.Fault()
        root = tmp_path_factory.mktemp("own") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own_loop, "Workbench", workshop.bench)
            opened = own_loop.open_run(prepared, root, retain_bytes=retain_bytes)
        bench = workshop.bench(None, own_loop.MeshSizes(), microbatch=None)
        executor = trainers.FaultyExecutor(bench, fault)
        state = jax.tree.map(lambda leaf: leaf, opened.initial_state)
        for step in opened.steps:
            batch = fault.batch(bench.batch(step))
            outputs = executor.gradient(state, [rows(piece) for piece in batch.pieces])
            state = executor.update(state, outputs, executor.scalars(outputs), step)
            opened.step(
                step,
                gradient=outputs["gradient"],
                state=state,
                loss=outputs["loss"],
                statistics=outputs["statistics"],
            )
        opened.finish()
        return RunDirectory.open(root)

    return run


@pytest.fixture(scope="module")
def own(loop: Run) -> RunDirectory:
    """Return an honest run whose bits are not those of the stored programs."""
    return loop()


@pytest.fixture
def copy_of_own(own: RunDirectory, tmp_path: Path) -> RunDirectory:
    shutil.copytree(own.root, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


def file_of(run: RunDirectory, step: int) -> Path:
    return run.retained / f"{step}.safetensors"


def change_last_byte_of(path: Path, tensor: str) -> None:
    """Flip a bit of one tensor of a safetensors file."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    data[8 + size + header[tensor]["data_offsets"][1] - 1] ^= 1
    path.write_bytes(data)


def test_every_step_passes_within_bounds(own: RunDirectory, audited: Any, trainers: Any) -> None:
    findings = audited(own, *range(1, trainers.STEPS + 1))
    for result in findings.results:
        assert result.outcome == "pass"
        assert result.words.startswith("within bounds")
        assert "gradient root" in result.differs
        assert result.a is not None and result.b is not None
    assert (findings.init.verdict, findings.line.verdict, findings.export.verdict) == (
        "pass", "pass", "pass",
    )  # fmt: skip
    assert findings.counts is not None
    assert findings.notes == ()


def test_every_step_passes_on_another_mesh_too(own: RunDirectory, audited: Any) -> None:
    (result,) = audited(own, STEP, mesh=own_loop.MeshSizes(data=2)).results
    assert result.outcome == "pass" and result.a is not None


def test_bits_of_the_stored_programs_pass_without_bounds(
    loop: Run, audited: Any, trainers: Any
) -> None:
    run = loop(rows=same_rows)
    shutil.rmtree(run.retained)
    results = audited(run, STEP, trainers.STEPS).results
    assert [(r.outcome, r.words, r.a) for r in results] == [
        ("pass", "every bit is equal", None)
    ] * 2


def test_larger_step_is_refuted_from_what_was_kept(loop: Run, audited: Any, trainers: Any) -> None:
    run = loop(fault=trainers.LargerRate(1.5, step=STEP))
    before, bad, after = audited(run, STEP - 1, STEP, STEP + 1).results
    assert (before.outcome, bad.outcome, after.outcome) == ("pass", "refuted", "pass")
    assert "outside the bounds: B" in bad.words


def test_other_gradient_is_refuted_from_what_was_kept(
    loop: Run, audited: Any, trainers: Any
) -> None:
    class LongerGradient(trainers.Fault):
        def gradient(self, outputs: Any, step: int) -> Any:
            if step != STEP:
                return outputs
            longer = jax.tree.map(lambda leaf: leaf * np.float32(1.001), outputs["gradient"])
            return {**outputs, "gradient": longer}

    (bad,) = audited(loop(fault=LongerGradient()), STEP).results
    assert bad.outcome == "refuted" and "outside the bounds: A" in bad.words


@pytest.mark.parametrize(
    ("tensor", "part"),
    [("outputs/gradient/layers/0/bias", "gradient"), ("state/parameters/layers/0/bias", "state")],
)
def test_changed_file_is_named_and_passes_nothing(
    tensor: str, part: str, copy_of_own: RunDirectory, audited: Any
) -> None:
    path = file_of(copy_of_own, STEP)
    change_last_byte_of(path, tensor)
    findings = audited(copy_of_own, STEP, STEP + 1)
    first, second = findings.results
    words = f"{path}: its {part} is not the one that step {STEP} commits"
    assert first.outcome == "withheld" and words in first.words
    assert words in findings.notes
    if part == "state":
        assert second.outcome == "withheld" and words in second.words
    else:
        assert second.outcome == "pass"


def test_training_checkpoint_stands_in_for_a_file_that_is_no_good(
    copy_of_own: RunDirectory, audited: Any
) -> None:
    path = file_of(copy_of_own, 8)
    path.write_bytes(path.read_bytes()[:100])
    found = audited(copy_of_own, 8, 9)
    # The step whose file it is shows nothing; the one after it needs the state alone.
    assert [result.outcome for result in found.results] == ["withheld", "pass"]
    assert any(str(path) in note for note in found.notes)


def test_file_cut_short_is_named(copy_of_own: RunDirectory, audited: Any) -> None:
    path = file_of(copy_of_own, STEP)
    path.write_bytes(path.read_bytes()[:-9])
    (result,) = audited(copy_of_own, STEP).results
    assert result.outcome == "withheld" and f"{path}: cannot be read" in result.words


def test_file_of_another_step_is_not_taken(copy_of_own: RunDirectory, audited: Any) -> None:
    shutil.copyfile(file_of(copy_of_own, STEP - 1), file_of(copy_of_own, STEP))
    (result,) = audited(copy_of_own, STEP).results
    assert result.outcome == "withheld" and "is not the one" in result.words


def test_missing_file_is_withheld(copy_of_own: RunDirectory, audited: Any) -> None:
    file_of(copy_of_own, STEP).unlink()
    at, following, later = audited(copy_of_own, STEP, STEP + 1, STEP + 2).results
    for result in (at, following):
        assert result.outcome == "withheld"
        assert f"step {STEP} is not retained (genesis says what is: every step)" in result.words
    assert later.outcome == "pass"


def test_bound_on_disk_keeps_the_newest_and_genesis_says_so(
    loop: Run, own: RunDirectory, audited: Any, trainers: Any
) -> None:
    limit = 4 * file_of(own, 1).stat().st_size
    run = loop(retain_bytes=limit)
    kept = sorted(int(path.stem) for path in run.retained.iterdir())
    last = trainers.STEPS
    assert kept == [last - 3, last - 2, last - 1, last]
    early, late = audited(run, STEP, last).results
    assert early.outcome == "withheld"
    assert f"genesis says what is: the newest steps within {limit} bytes" in early.words
    assert late.outcome == "pass"


def test_training_checkpoints_are_kept_by_the_configured_cadence(own: RunDirectory) -> None:
    assert sorted(path.name for path in own.checkpoints.iterdir()) == [
        "step_16",
        "step_24",
        "step_8",
    ]


@pytest.mark.parametrize("part", ["_retained.save", "_checkpointing.after_step"])
def test_step_that_is_tried_again_after_a_full_disk_is_signed_once(
    loop: Run, trainers: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    honest = own_loop.OwnRun.step

    def twice(run: Any, step: int, **told: Any) -> None:
        def full(*unused: Any) -> None:
            raise AnhError("disk full")

        owner, name = part.split(".")
        if step == STEP:
            with monkeypatch.context() as patch, pytest.raises(AnhError, match="disk full"):
                patch.setattr(getattr(run, owner), name, full)
                honest(run, step, **told)
            if owner == "_checkpointing":
                with pytest.raises(AnhError, match="sign steps in order"):
                    honest(run, step, **told)
                return
        honest(run, step, **told)

    monkeypatch.setattr(own_loop.OwnRun, "step", twice)
    run = loop()  # its last act is to walk the line
    assert [signed.row.step for signed in signed_rows(run)] == list(range(1, trainers.STEPS + 1))


def test_step_without_a_digest_is_refused_and_can_be_made_again(
    loop: Run, trainers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = own_loop.OwnRun.step

    def twice(run: Any, step: int, *, gradient: Any, **told: Any) -> None:
        if step == STEP:
            weak = jax.tree.map(
                lambda leaf: jnp.broadcast_to(jnp.asarray(1.0), leaf.shape), gradient
            )
            with pytest.raises(AnhError, match="weakly typed"):
                honest(run, step, gradient=weak, **told)
        honest(run, step, gradient=gradient, **told)

    monkeypatch.setattr(own_loop.OwnRun, "step", twice)
    run = loop()
    assert [signed.row.step for signed in signed_rows(run)] == list(range(1, trainers.STEPS + 1))
