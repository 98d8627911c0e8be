"""A branch that left the line is held to it by the class's rule: by bits, or within bounds."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.audit.folder_source import FolderSource, branch_folder
from anh_jax.audit.replay import kept_copy
from anh_jax.audit.shown_tree import RunNames
from anh_jax.errors import AnhError, RefutedError
from anh_jax.training.retained_steps import RetainedSteps
from launch.replayed_files import write_step
from launch.replaying import opened_run

SHARED = 9  # the first step that both attempts take, from state 8


@pytest.fixture(scope="module")
def elsewhere(trainers) -> Any:
    """Return a trainer whose sums are added in another order, as another machine might."""

    class Elsewhere(trainers.Fault):
        def __init__(self) -> None:
            self.shown: dict[str, Any] = {}

        def batch(self, batch):
            pieces = tuple(
                {name: array[::-1] for name, array in piece.items()} for piece in batch.pieces
            )
            return dataclasses.replace(batch, pieces=pieces)

        def gradient(self, outputs, step):
            if step == SHARED:
                self.shown["outputs"] = jax.tree.map(np.array, outputs)
            return outputs

        def update(self, before, after, step):
            if step in (SHARED - 1, SHARED):
                self.shown[f"state {step}"] = kept_copy(after)
            return after

    return Elsewhere


@pytest.fixture(scope="module")
def two_attempts(trainers, workshop) -> Any:
    """Return a function that trains in two attempts: the second takes steps 9 to 13 again."""

    def train(first: Any, second: Any) -> Any:
        run = workshop.train(workshop.new_run(), first, stop_after=13)
        shutil.rmtree(run.checkpoints / "step_13")
        return workshop.train(run, second)

    return train


def branch_row(told: Any) -> Any:
    (row,) = (s for s in told.line.stale if s.row.step == SHARED)
    assert row.row_hash != told.line.rows[SHARED - 1].row_hash
    return row


def source_of(told: Any, folder: Path, fault: Any, *, branch: bool = True) -> FolderSource:
    """Hand over what step 9 starts from and, if asked for, what the branch committed."""
    RetainedSteps(folder).save_state(SHARED - 1, fault.shown[f"state {SHARED - 1}"])
    if branch:
        named = branch_folder(folder, branch_row(told).row_hash.hex())
        after = fault.shown[f"state {SHARED}"]
        RetainedSteps(named).save(SHARED, fault.shown["outputs"], after)
    names = RunNames(told.run, told.genesis.run_key, told.genesis.alg)
    return FolderSource(folder, names)


@pytest.fixture(scope="module")
def honest_branch(elsewhere, two_attempts, trainers) -> Any:
    fault = elsewhere()
    run = two_attempts(fault, trainers.Fault())
    return run, fault, trainers.transcript(run)


def test_branch_of_another_class_is_weighed_within_bounds(
    honest_branch, audited, trainers, other_class, tmp_path: Path
) -> None:
    run, fault, told = honest_branch
    found = audited(run, SHARED, source=source_of(told, tmp_path, fault))
    result = trainers.only(found)
    # The line's row has our bits. The branch's has others, of which bits alone would say nothing.
    assert result.outcome == "pass"
    assert result.words.startswith("every bit is equal; attempt 1, off the line: within bounds")
    # Two residuals of one step count for no walk.
    assert found.walk.verdict == "not checked"


def test_branch_that_nobody_can_open_is_unattestable_and_not_withheld(
    honest_branch, audited, trainers, other_class, tmp_path: Path
) -> None:
    run, fault, told = honest_branch
    for source in (None, source_of(told, tmp_path, fault, branch=False)):
        result = trainers.only(audited(run, SHARED, source=source))
        assert result.outcome == "unattestable"
        assert result.words.startswith("attempt 1, off the line: ")


def test_branch_of_another_class_outside_the_bounds_is_refuted(
    elsewhere, two_attempts, audited, trainers, other_class, tmp_path: Path
) -> None:
    class Larger(elsewhere):
        def update(self, before, after, step):
            if step == SHARED:
                moved = jax.tree.map(lambda x: x * np.float32(1.0001), after["parameters"])
                after = {**after, "parameters": moved}
            return super().update(before, after, step)

    fault = Larger()
    run = two_attempts(fault, trainers.Fault())
    told = trainers.transcript(run)
    result = trainers.only(audited(run, SHARED, source=source_of(told, tmp_path, fault)))
    assert result.outcome == "refuted"
    assert result.words.startswith("attempt 1, off the line: outside the bounds: B = ")


def test_files_that_are_not_the_branchs_show_nothing_about_it(
    honest_branch, audited, trainers, other_class, tmp_path: Path
) -> None:
    run, fault, told = honest_branch
    other = {**fault.shown, f"state {SHARED}": fault.shown[f"state {SHARED - 1}"]}
    shown, fault.shown = fault.shown, other
    try:
        source = source_of(told, tmp_path, fault)
    finally:
        fault.shown = shown
    assert trainers.only(audited(run, SHARED, source=source)).outcome == "unattestable"


def test_trainer_hands_over_the_step_of_an_attempt_that_left_the_line(
    elsewhere, two_attempts, trainers, workshop, tmp_path: Path
) -> None:
    # The branch was computed here, the line elsewhere.
    run = two_attempts(trainers.Fault(), elsewhere())
    row = branch_row(trainers.transcript(run))
    with workshop.auditing(), opened_run(run.root) as opened:
        made = opened.regeneration.take(opened.regeneration.beginning(SHARED, attempt=1))
        assert made.signed == row
        opened.regeneration.check(made)
        written = write_step(opened, made, tmp_path / "out")
        folder = branch_folder(tmp_path / "out", row.row_hash.hex())
        assert (folder / f"{SHARED}.safetensors") in written.files
        assert RetainedSteps(folder).steps() == (SHARED,)
        other = opened.regeneration.take(opened.regeneration.beginning(SHARED, attempt=2))
        with pytest.raises(RefutedError, match="does not reproduce"):
            opened.regeneration.check(other)
        # A later step of the branch starts from a state of its own.
        for step, attempt in ((SHARED + 1, 1), (SHARED, 3)):
            with pytest.raises(AnhError, match="has no row of it that starts from the line"):
                opened.regeneration.beginning(step, attempt=attempt)
