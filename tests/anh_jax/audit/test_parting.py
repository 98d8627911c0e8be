"""The step at which two runs part is found from the signed rows, even where they meet again."""

import dataclasses
import hashlib
import math

import pytest

from anh_jax.audit import parting as module
from anh_jax.audit.bisect import RunSearch
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.parting import first_apart, part
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.workbench import MeshSizes
from attest.statements import Row, Scalars

STEPS = 64


@pytest.fixture
def searching(trainers, workshop):
    """Return a function that opens a run for a search."""
    opened = []

    def make(run) -> RunSearch:
        kept = TrainingCheckpoints(run.checkpoints, keep=99)
        opened.append(kept)
        told = trainers.transcript(run)
        return RunSearch(told, workshop.read(run), KeptStates(told, kept))

    with workshop.auditing():
        yield make
    for kept in opened:
        kept.close()


@pytest.fixture(scope="session")
def faulty(cheat, trainers):
    return cheat(trainers.LargerRate(1.5))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def line(name: str, **changed: Row) -> list[Row]:
    """Return a line of rows; `changed` are by step, such as `s5`."""
    run, rows = digest(name), []
    for step in range(1, STEPS + 1):
        row = Row(
            run=run,
            step=step,
            prev=rows[-1].hash().hex() if rows else run,
            gradient_root=digest(f"gradient {step}"),
            state_root=digest(f"state {step}"),
            batch_root=digest(f"batch {step}"),
            scalars=Scalars((1.0).hex(), 1, (4.0).hex()),
            loss=(2.0).hex(),
            bound=None,
        )
        rows.append(dataclasses.replace(row, **changed.get(f"s{step}", {})))
    return rows


def test_of_two_runs_the_wrong_one_is_told(honest, faulty, searching, trainers) -> None:
    parted = part(searching(honest), searching(faulty))
    assert parted is not None and parted.step == trainers.BAD
    assert [side.result.outcome for side in parted.runs] == ["pass", "refuted"]
    parted = part(searching(faulty), searching(honest))
    assert [side.result.outcome for side in parted.runs] == ["refuted", "pass"]


def test_two_honest_runs_do_not_part(honest, searching, workshop, trainers) -> None:
    other = workshop.train(workshop.new_run(), trainers.Fault())
    assert part(searching(honest), searching(other)) is None


def test_run_that_leaves_the_other_and_comes_back_parts(
    honest, cheat, searching, workshop, trainers
) -> None:
    detour = cheat(trainers.Detour(workshop.bench(None, MeshSizes(), microbatch=None)))
    parted = part(searching(honest), searching(detour))
    assert parted is not None and parted.step == trainers.BAD
    assert [side.result.outcome for side in parted.runs] == ["pass", "refuted"]


def test_two_lines_of_rows_are_compared_in_log_t_looks(monkeypatch) -> None:
    compared, honest, rows = [], module._same, line("one")

    def counted(lines, step):
        compared.append(step)
        return honest(lines, step)

    monkeypatch.setattr(module, "_same", counted)
    for bad in range(1, STEPS + 1, 7):
        compared.clear()
        # That one step alone differs: all states after it are the same again.
        other = line("two", **{f"s{bad}": {"state_root": digest("!")}})
        assert first_apart(rows, other) == bad
        assert len(compared) <= math.ceil(math.log2(STEPS + 1))
    assert first_apart(rows, line("two")) is None


@pytest.mark.parametrize("name", ["gradient_root", "batch_root", "loss"])
def test_every_number_of_a_row_parts_two_lines(name) -> None:
    value = (3.0).hex() if name == "loss" else digest("!")
    assert first_apart(line("one"), line("two", s9={name: value})) == 9


def test_states_that_one_line_did_not_hash_are_left_out() -> None:
    none = {f"s{step}": {"state_root": None} for step in range(1, STEPS + 1) if step % 4}
    assert first_apart(line("one"), line("two", **none)) is None
    assert first_apart(line("one"), line("two", **none, s8={"state_root": digest("!")})) == 8


def test_declared_bounds_part_nobody() -> None:
    assert first_apart(line("one"), line("two", s3={"bound": (1.0).hex()})) is None
