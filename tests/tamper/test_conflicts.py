"""Two stories signed for one place of a run refuse it, whoever shows them."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from attest.envelope import Envelope, sign
from attest.statements import encode_statement


def signed(tale: ModuleType, statement: Any, *signers: str) -> Envelope:
    return sign(encode_statement(statement), [tale.key(name) for name in signers])


def with_conflict(story: Any, first: Envelope, second: Envelope, signer: str = "stranger") -> Any:
    story.tell_conflict(first, second, signer=signer)
    story.tell_status()
    return story


def pair(tale: ModuleType, story: Any, kind: str, signer: str = "") -> tuple[Envelope, Envelope]:
    """Return two different records for one place of the run, both signed."""
    if kind == "final":
        told = (story.final, replace(story.final, state_root=tale.digest("another state")))
        return tuple(signed(tale, s, signer or "lab") for s in told)  # type: ignore[return-value]
    if kind == "attempt":
        attempt = story.statements[story.at["attempt-1"]]
        told = (attempt, replace(attempt, environment={"hostname": "node-8"}))
        return tuple(signed(tale, s, signer or "lab") for s in told)  # type: ignore[return-value]
    if kind == "segment":
        segment = tale.segment(story.run, story.records["attempt-1"], 1, 10)
        told = (segment, replace(segment, rows_root=tale.digest("other rows")))
        return tuple(signed(tale, s, signer or "worker-1") for s in told)  # type: ignore[return-value]
    steps = []
    for loss in ("0x1.0000000000000p-3", "0x1.0000000000000p-4"):
        story.tell_step(5, loss=loss, signers=(signer or "worker-1",))
        steps.append(story.entry(story.at["step-5"]))
        story.drop_last()
    return steps[0], steps[1]


@pytest.mark.parametrize("kind", ["final", "attempt", "step", "segment"])
def test_two_records_for_one_place_refuse_the_run(tale: ModuleType, refused, kind: str) -> None:
    story = tale.honest()
    refused("conflict", with_conflict(story, *pair(tale, story, kind)))


@pytest.mark.parametrize("kind", ["final", "attempt", "step", "segment"])
def test_pair_signed_by_others_accuses_nobody(tale: ModuleType, kind: str) -> None:
    story = tale.honest()
    verdict = with_conflict(story, *pair(tale, story, kind, "stranger")).verify()
    assert verdict.level.text == "sampled"
    assert any("conflict at index" in doubt for doubt in verdict.doubts)


def test_segments_that_share_a_step_refuse_the_run(tale: ModuleType, refused) -> None:
    story = tale.honest()
    attempt = story.records["attempt-1"]
    told = [tale.segment(story.run, attempt, *steps) for steps in ((1, 10), (8, 12))]
    refused("conflict", with_conflict(story, *(signed(tale, s, "worker-1") for s in told)))


@pytest.mark.parametrize("step", [10, 11])
def test_segment_and_step_that_disagree_refuse_the_run(
    tale: ModuleType, refused, step: int
) -> None:
    story = tale.honest()
    segment = signed(tale, tale.segment(story.run, story.records["attempt-1"], 1, 10), "worker-1")
    story.tell_step(step, prev=tale.digest("another row"))
    row = story.entry(story.at[f"step-{step}"])
    story.drop_last()
    refused("conflict", with_conflict(story, segment, row))


def test_step_that_follows_a_segment_is_no_conflict(tale: ModuleType) -> None:
    story = tale.honest()
    segment = signed(tale, tale.segment(story.run, story.records["attempt-1"], 1, 10), "worker-1")
    story.tell_step(11)
    row = story.entry(story.at["step-11"])
    story.drop_last()
    assert with_conflict(story, segment, row).verify().level.text == "sampled"


@pytest.mark.parametrize("signers", [("stranger", "worker-1"), ("worker-1", "stranger")])
def test_segment_and_step_of_which_one_is_forged_accuse_nobody(
    tale: ModuleType, signers: tuple[str, str]
) -> None:
    story = tale.honest()
    segment = signed(tale, tale.segment(story.run, story.records["attempt-1"], 1, 10), signers[0])
    story.tell_step(10, signers=signers[1:])
    row = story.entry(story.at["step-10"])
    story.drop_last()
    assert with_conflict(story, segment, row).verify().level.text == "sampled"


def test_segments_one_after_the_other_are_no_conflict(tale: ModuleType) -> None:
    story = tale.honest()
    attempt = story.records["attempt-1"]
    told = [tale.segment(story.run, attempt, *steps) for steps in ((1, 10), (11, 12))]
    both = (signed(tale, segment, "worker-1") for segment in told)
    assert with_conflict(story, *both).verify().level.text == "sampled"


def test_segments_of_two_attempts_are_no_conflict(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_attempt(number=2)
    story.tell_final()
    told = [
        signed(tale, tale.segment(story.run, story.records[f"attempt-{n}"], 1, 9 + n), key)
        for n, key in ((1, "worker-1"), (2, "worker-2"))
    ]
    assert with_conflict(story, *told).verify().level.text == "witnessed"


def test_records_of_two_places_are_no_conflict(tale: ModuleType) -> None:
    story = tale.honest()
    first, second = (story.entry(story.at[name]) for name in ("attempt-1", "final"))
    assert with_conflict(story, first, second).verify().level.text == "sampled"


def test_steps_of_two_attempts_are_no_conflict(tale: ModuleType) -> None:
    story = tale.Story()
    story.open()
    story.tell_attempt(number=2)
    story.tell_final()
    told = []
    for attempt in (1, 2):
        story.tell_step(5, attempt=attempt, loss=f"0x1.0000000000000p-{attempt}")
        told.append(story.entry(story.at["step-5"]))
        story.drop_last()
    assert with_conflict(story, *told).verify().level.text == "witnessed"


@pytest.mark.parametrize("reporter", ["court", "watch"])
def test_conflict_signed_by_a_named_reporter_refuses_the_run(
    tale: ModuleType, refused, reporter: str
) -> None:
    story = tale.honest()
    first, second = (story.entry(story.at[name]) for name in ("genesis", "attempt-1"))
    refused("conflict", with_conflict(story, first, second, reporter))


@pytest.mark.parametrize("signer", ["worker-1", "stranger"])
def test_steps_of_attempts_too_many_to_list_are_not_shown_by_a_stranger(
    tale: ModuleType, refused, signer: str
) -> None:
    story = tale.Story()
    story.open()
    for number in range(2, 10):
        story.tell_attempt(number=number)
    story.tell_final()
    steps = pair(tale, story, "step", signer)
    doubts = with_conflict(story, *steps).verify().doubts
    words = "not shown: the keys of its attempt are not in the proof"
    assert f"not counted: conflict at index {story.at['conflict']} {words}" in doubts
    story.drop_last()
    story.drop_last()
    refused("conflict", with_conflict(story, *steps, "court"))


def test_conflict_left_out_is_refused(tale: ModuleType, refused) -> None:
    story = tale.honest()
    with_conflict(story, *pair(tale, story, "final"))
    refused("omissions", story, story.proof_but("conflict"))
