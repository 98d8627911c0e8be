"""A run goes on from the state that was signed, and from no other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from anh_jax.digest.digester import HostDigest
from anh_jax.errors import AnhError
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.resume import Start, find_start
from anh_jax.workbench import MeshSizes, Workbench, read_materials


class Stopped:
    """A copy of a finished run whose only training checkpoint a test makes itself."""

    def __init__(self, finished: RunDirectory, folder: Path) -> None:
        self.run = RunDirectory(folder / "copy")
        shutil.copytree(finished.root, self.run.root)
        self.bench = Workbench(read_materials(self.run), MeshSizes(), microbatch=None)
        self._store = TrainingCheckpoints(self.run.checkpoints, keep=3)
        self.newest = self._store.newest()
        assert self.newest is not None
        self.kept = self._store.restore(self.newest, self.bench.abstract_state())
        self._store.close()
        shutil.rmtree(self.run.checkpoints)

    def start_from(self, step: int, state: dict[str, Any], position: Position) -> Start:
        store = TrainingCheckpoints(self.run.checkpoints, keep=3)
        try:
            store.save(step, state, position)
            store.wait()
            return find_start(self.run, self.bench, store, HostDigest())
        finally:
            store.close()


@pytest.fixture
def stopped(finished: RunDirectory, tmp_path: Path) -> Stopped:
    return Stopped(finished, tmp_path)


def changed(state: dict[str, Any], change: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    leaves, form = jax.tree.flatten(state["parameters"])
    return {**state, "parameters": jax.tree.unflatten(form, [change(leaves[0]), *leaves[1:]])}


def test_the_signed_state_is_gone_on_from(stopped: Stopped) -> None:
    kept = stopped.kept
    start = stopped.start_from(kept.step, kept.state, kept.position)
    assert start.step == kept.step
    assert start.checked.startswith("state: equal, keys: equal, learning rate: equal")


def test_a_state_of_other_bits_is_refused(stopped: Stopped) -> None:
    kept = stopped.kept
    # One ulp of one tensor: what a bad disk, or a splice of weights, would leave.
    other = changed(kept.state, lambda leaf: leaf * (1 + 2**-23))
    with pytest.raises(AnhError, match="is not the state that was signed"):
        stopped.start_from(kept.step, other, kept.position)


def test_another_key_is_refused(stopped: Stopped) -> None:
    kept = stopped.kept
    other = {**kept.state, "key": jax.random.key(99)}
    with pytest.raises(AnhError, match="is not the state that was signed"):
        stopped.start_from(kept.step, other, kept.position)


def test_a_row_that_nobody_signed_is_no_place_to_go_on_from(stopped: Stopped) -> None:
    kept = stopped.kept
    nowhere = Position(row="ab" * 32, record="cd" * 32)
    with pytest.raises(AnhError, match="no step file holds the row"):
        stopped.start_from(kept.step, kept.state, nowhere)


def test_a_row_named_by_another_record_is_no_place_to_go_on_from(stopped: Stopped) -> None:
    kept = stopped.kept
    for other in (
        Position(row=kept.position.row, record="cd" * 32),
        Position(row="ab" * 32, record=kept.position.record),
    ):
        with pytest.raises(AnhError, match="no step file holds the row"):
            stopped.start_from(kept.step, kept.state, other)
        shutil.rmtree(stopped.run.checkpoints)
