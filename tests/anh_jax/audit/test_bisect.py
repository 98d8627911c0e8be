"""The first step that does not follow is found in few looks, and is the one where a fault lies."""

import pytest

from anh_jax.audit.bisect import RunSearch, Stretch, most_looks
from anh_jax.audit.kept_states import KeptStates
from anh_jax.errors import AnhError
from anh_jax.training.checkpoints import TrainingCheckpoints
from anh_jax.workbench import MeshSizes


@pytest.fixture
def searching(trainers, workshop):
    """Return a function that opens a run for a search."""
    opened = []

    def make(run) -> RunSearch:
        told = trainers.transcript(run)
        kept = TrainingCheckpoints(run.checkpoints, keep=99)
        opened.append(kept)
        return RunSearch(told, workshop.read(run), KeptStates(told, kept))

    with workshop.auditing():
        yield make
    for kept in opened:
        kept.close()


@pytest.fixture(scope="session")
def faulty(cheat, trainers):
    return cheat(trainers.LargerRate(1.5))


@pytest.fixture(scope="session")
def detour(cheat, trainers, workshop):
    return cheat(trainers.Detour(workshop.bench(None, MeshSizes(), microbatch=None)))


def test_corrupted_step_is_found_in_log_t_looks(faulty, searching, trainers) -> None:
    looked = []
    found = searching(faulty).search(look=looked.append)
    assert found.first is not None
    assert found.first.result.step == trainers.BAD
    assert found.first.result.outcome == "refuted"
    assert found.first.result.differs == ("state root",)
    assert found.looks == len(looked) <= most_looks(trainers.STEPS) == 5
    assert found.executed <= trainers.STEPS + 1


@pytest.mark.parametrize("bad", [1, 2, 24])
def test_corrupted_step_is_found_wherever_it_lies(bad, cheat, searching, trainers) -> None:
    found = searching(cheat(trainers.LargerRate(1.5, step=bad))).search()
    assert found.first is not None and found.first.result.step == bad
    assert found.looks <= most_looks(trainers.STEPS)


def test_honest_run_follows_in_every_step(honest, searching, trainers) -> None:
    found = searching(honest).search()
    assert found.first is None
    assert found.looks <= most_looks(trainers.STEPS)


def test_search_between_two_states_executes_only_what_lies_between(
    faulty, searching, trainers
) -> None:
    found = searching(faulty).search(Stretch(8, 16))
    assert found.first is not None and found.first.result.step == trainers.BAD
    assert found.looks <= most_looks(8)
    assert found.executed <= 9
    assert searching(faulty).search(Stretch(16, 24)).first is None


def test_first_step_names_its_batch(faulty, searching, workshop, trainers) -> None:
    first = searching(faulty).search(Stretch(8, 16)).first
    order = workshop.bench(None, MeshSizes(), microbatch=None).reader.order
    assert list(first.examples) == [int(i) for i in order.step(trainers.BAD) if i >= 0]
    assert [(h.rank, h.start, h.stop) for h in first.hosts] == [(0, 0, 48)]


def test_on_another_class_other_bits_refute_nothing(faulty, searching, other_class) -> None:
    first = searching(faulty).search(Stretch(8, 16)).first
    assert first.result.outcome == "unattestable"


def test_state_that_is_not_kept_is_no_start(faulty, searching) -> None:
    with pytest.raises(AnhError, match="cannot start from state 5"):
        searching(faulty).search(Stretch(5, 16))


def test_detour_that_comes_back_to_the_honest_state_is_found(
    detour, honest, searching, trainers
) -> None:
    last = [searching(run).rows[-1].row.state_root for run in (detour, honest)]
    assert last[0] == last[1] is not None, "the run does not come back"
    found = searching(detour).search()
    assert found.first is not None and found.first.result.step == trainers.BAD
    assert found.first.result.outcome == "refuted"
    assert found.looks <= most_looks(trainers.STEPS)
    assert found.executed <= trainers.STEPS + 1


def test_row_that_only_states_another_loss_is_found(cheat, searching, trainers) -> None:
    found = searching(cheat(trainers.WrongLoss())).search()
    assert found.first is not None and found.first.result.step == trainers.BAD
    assert found.first.result.differs == ("loss",)
