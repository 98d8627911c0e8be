"""The intake: many submitters share a transaction, and nothing taken on is forgotten."""

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from attest.errors import InputError, RefusedError
from attest.log import intake as intake_module
from attest.log.admission import Candidate
from attest.log.intake import Intake
from attest.log.sequencer import LocalLog
from attest.log.submission import Outcome, Submission
from attest.rejections import RejectedError


class Log:
    """Take submissions when it is let go, or fail as it is told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []
        self.failure: Exception | None = None
        self.size = 0

    def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        assert self.go.wait(10)
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(submissions))
        outcomes: list[Outcome] = []
        for one in submissions:
            indices = tuple(range(self.size, self.size + len(one.records)))
            self.size += len(one.records)
            outcomes.append(Outcome(indices, None))
        return outcomes


@pytest.fixture
def one(lab: ModuleType) -> Submission:
    return Submission((Candidate.of(lab.Lab().genesis),))


def test_those_who_wait_share_the_next_transaction(one: Submission) -> None:
    log = Log()
    intake = Intake(log)
    intake.start()
    futures = [intake.submit(one) for _ in range(50)]
    log.go.set()
    assert [future.result(10).indices for future in futures] == [(i,) for i in range(50)]
    assert sum(log.batches) == 50
    assert len(log.batches) <= 2
    assert intake.waiting == 0
    intake.close()


def test_closing_commits_and_answers_what_was_taken_on_and_takes_no_more(one: Submission) -> None:
    log = Log()
    intake = Intake(log)
    intake.start()
    futures = [intake.submit(one) for _ in range(5)]
    closing = threading.Thread(target=intake.close)
    closing.start()
    log.go.set()
    closing.join(10)
    assert all(future.done() for future in futures)
    assert log.size == 5
    with pytest.raises(RejectedError, match="shutting down"):
        intake.submit(one)


def test_disk_that_is_full_is_told_to_those_who_wait_and_tried_again(
    one: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_PAUSE_SECONDS", 0.01)
    log = Log()
    log.go.set()
    log.failure = InputError("disk full")
    intake = Intake(log)
    intake.start()
    with pytest.raises(RejectedError, match="disk full") as caught:
        intake.submit(one).result(10)
    assert caught.value.check == "unavailable"
    assert isinstance(intake.trouble, InputError)
    log.failure = None
    assert intake.submit(one).result(10).indices == (0,)
    assert intake.trouble is None
    intake.close()


def test_log_that_turns_out_damaged_takes_nothing_more(one: Submission) -> None:
    log = Log()
    log.go.set()
    log.failure = RefusedError("an entry was altered", check="root")
    intake = Intake(log)
    intake.start()
    with pytest.raises(RejectedError, match="an entry was altered"):
        intake.submit(one).result(10)
    with pytest.raises(RejectedError, match="the log is closed"):
        for _ in range(1000):
            intake.submit(one)
    intake.close()


def test_too_many_who_wait_are_turned_away(
    one: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_MOST_WAITING", 10)
    log = Log()
    intake = Intake(log)
    intake.start()
    taken: list[Any] = []
    with pytest.raises(RejectedError) as caught:
        for _ in range(100):
            taken.append(intake.submit(one))
    assert caught.value.check == "busy"
    log.go.set()
    for future in taken:
        assert future.result(10).refusal is None
    assert intake.submit(one).result(10).refusal is None
    intake.close()


def test_house_that_is_closed_takes_nothing(
    begun: tuple[Any, Any],
) -> None:
    served, run = begun
    served.stop()
    with pytest.raises(RejectedError, match="shutting down"):
        served.house.intake.submit(Submission((Candidate.of(run.step(1, 4)),)))


def test_key_counts_for_who_brings_it_alone(log: LocalLog, lab: ModuleType) -> None:
    run, auditor = lab.Lab(), lab.key("auditor").public
    log.append(run.opening(), keys=[run.author])
    intent = Candidate.of(run.intent("auditor"))
    bare, without, with_key = log.submit(
        [Submission((), (auditor,)), Submission((intent,)), Submission((intent,), (auditor,))]
    )
    assert bare.refusal is None
    assert without.refusal is not None and without.refusal.check == "key-unknown"
    assert (with_key.indices, with_key.refusal) == ((3,), None)
