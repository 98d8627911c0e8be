"""States are regenerated from the nearest start, and none counts before its digest is committed."""

import shutil

import orbax.checkpoint as ocp
import pytest

from anh_jax.audit.benches import Benches
from anh_jax.audit.kept_states import KeptStates
from anh_jax.audit.replay import Reached, Replay, Unreached
from anh_jax.digest.host import tree_digest
from anh_jax.run_directory import RunDirectory
from anh_jax.training.checkpoints import TrainingCheckpoints


@pytest.fixture
def replay(trainers, workshop):
    """Return a function that makes a replay of a run, with its training checkpoints or without."""
    opened = []

    def make(run, *, checkpoints: str = "kept") -> Replay:
        told = trainers.transcript(run)
        kept = None
        if checkpoints == "kept":
            kept = TrainingCheckpoints(run.checkpoints, keep=99)
            opened.append(kept)
        return Replay(told, Benches(workshop.read(run), told.genesis), KeptStates(told, kept))

    with workshop.auditing():
        yield make
    for kept in opened:
        kept.close()


def steps_taken(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    taken: list[int] = []
    honest = replay._step

    def counted(state, step):
        taken.append(step)
        return honest(state, step)

    monkeypatch.setattr(replay, "_step", counted)
    return taken


def test_every_state_has_the_committed_digest(honest, replay, trainers) -> None:
    told, states = trainers.transcript(honest), replay(honest)
    for step in range(trainers.STEPS + 1):
        reached = states.state(step)
        assert isinstance(reached, Reached)
        assert tree_digest(reached.state, step=step).root.hex() == told.state_root(step)


def test_replay_starts_from_the_nearest_state(honest, replay, monkeypatch) -> None:
    states = replay(honest)
    taken = steps_taken(states, monkeypatch)
    states.state(10)  # from the training checkpoint of step 8
    states.state(12)  # from state 10
    states.state(17)  # from the training checkpoint of step 16
    assert taken == [9, 10, 11, 12, 17]


def test_without_training_checkpoints_it_starts_from_state_0(honest, replay, monkeypatch) -> None:
    states = replay(honest, checkpoints="none")
    taken = steps_taken(states, monkeypatch)
    states.state(3)
    assert taken == [1, 2, 3]


def test_training_checkpoint_that_is_not_the_committed_state_is_no_start(
    cheat, workshop, trainers, replay
) -> None:
    run = workshop.train(workshop.new_run(), trainers.Fault())
    other = cheat(trainers.LargerRate(1.5, step=5))
    shutil.rmtree(run.checkpoints / "step_8")
    shutil.copytree(other.checkpoints / "step_8", run.checkpoints / "step_8")
    states = replay(run)
    assert isinstance(states.state(10), Reached)
    assert states.notes == ["the training checkpoint of step 8 is not the committed state"]


@pytest.mark.parametrize("what", ["arrays", "place"])
def test_training_checkpoint_with_damaged_files_is_no_start_and_is_said_to(
    honest, trainers, audited, tmp_path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def damaged(*unused: object, **unused_too: object) -> None:
        # What Orbax raises where an array's bytes are cut short. It leaves failed tasks behind, to
        # be found in whichever test runs next: so no file is damaged here.
        raise Exception("Encountered error while reading array index: (slice(0, 64, 1),)")

    shutil.copytree(honest.root, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    if what == "place":
        (run.checkpoints / "step_8" / "position" / "metadata").write_text("[]")
    else:
        monkeypatch.setattr(ocp.CheckpointManager, "restore", damaged)
    found = audited(run, 10)
    assert trainers.only(found).outcome == "pass"
    assert any("the training checkpoint of step 8 cannot be read" in note for note in found.notes)


def test_way_over_a_step_that_does_not_hold_is_named(cheat, trainers, replay) -> None:
    states = replay(cheat(trainers.LargerRate(1.0001)))
    for step in (trainers.BAD, trainers.BAD + 1):
        found = states.state(step)
        assert isinstance(found, Unreached)
        assert found.last.step == trainers.BAD - 1
    assert isinstance(states.state(16), Reached)


def test_state_that_the_digest_policy_skips_is_reached_by_its_gradients(
    workshop, trainers, audited
) -> None:
    run = workshop.train(workshop.new_run("attest.digest=every 5"), trainers.Fault())
    results = audited(run, 4, 5, 6, 13, trainers.STEPS).results
    assert {result.outcome for result in results} == {"pass"}


def test_bad_step_between_two_digests_is_refuted_by_the_next_gradient(
    workshop, trainers, audited
) -> None:
    fault = trainers.LargerRate(1.0001)
    run = workshop.train(workshop.new_run("attest.digest=every 5"), fault)
    bad, after = audited(run, trainers.BAD, trainers.BAD + 1).results
    assert (bad.outcome, after.outcome) == ("refuted", "refuted")
    assert bad.words.startswith(f"step {trainers.BAD + 1}, after it: gradient root")
    (later,) = audited(run, 20).results
    assert later.outcome == "refuted"
    assert later.words.startswith(f"step {trainers.BAD + 1}, before it: gradient root")


def test_bad_step_just_before_a_digest_is_refuted_by_it(workshop, trainers, audited) -> None:
    run = workshop.train(
        workshop.new_run("attest.digest=every 7"), trainers.LargerRate(1.0001, step=14)
    )
    before, bad = audited(run, 12, 14).results
    assert (before.outcome, bad.outcome) == ("refuted", "refuted")
    assert before.words.startswith("step 14, after it: state root")


@pytest.mark.parametrize("bad", [13, 16], ids=["between two digests", "at the digest"])
def test_training_checkpoint_at_the_next_digest_stands_for_no_step_before_it(
    workshop, trainers, audited, bad: int
) -> None:
    # Digests and training checkpoints fall on the same steps, as `auto` lets them.
    fault = trainers.LargerRate(1.0001, step=bad)
    run = workshop.train(workshop.new_run("attest.digest=every 8"), fault)
    first, other = audited(run, 13, 15).results
    assert first.outcome == "refuted" and other.outcome != "pass"


def test_going_on_to_the_next_digest_keeps_the_place_between_two_digests(
    workshop, trainers, replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workshop.train(workshop.new_run("attest.digest=every 8"), trainers.Fault())
    states = replay(run)
    taken: list[int] = []
    bench = states._bench
    monkeypatch.setattr(states, "_bench", lambda step: [taken.append(step), bench(step)][1])
    between = states.state(12)
    taken.clear()
    assert states.follow(between, 16).step == 16
    assert states.state(14).step == 14
    # Not from the training checkpoint of step 8 again: steps are taken twice at most.
    assert taken == [13, 14, 15, 16, 13, 14]
