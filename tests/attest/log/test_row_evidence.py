"""Two stories of one key are evidence that anybody can check; what shows nothing is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.attempt_rows import OtherRowsError
from attest.envelope import sign
from attest.equivocation import check_row_evidence, encode_row_evidence
from attest.errors import AttestError, FormatError, RefusedError
from attest.statements import decode_statement


@pytest.fixture
def run(run_directory: Path, lab: ModuleType, hosts: ModuleType) -> Any:
    started = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1, segments="every 4")
    return started


def test_rows_signed_otherwise_than_their_segment_are_evidence(run: Any) -> None:
    run.train(1, 1, 4)
    segment = run.cut(1, 1, 4, rows_root=run.lab.digest("other rows"))
    with pytest.raises(OtherRowsError) as caught:
        run.take(segment)
    evidence = run.told(segment, *caught.value.rows)
    assert "its rows have another root" in check_row_evidence(evidence, run.trainer.run)


def test_evidence_by_segments_and_by_steps_alone_is_checked(run: Any) -> None:
    trainer = run.trainer
    trainer.train(1, 1, 6)
    one, two = trainer.segment(1, 1, 4), trainer.segment(1, 3, 6)
    assert "two segments commit step 3" in check_row_evidence(run.told(one, two), trainer.run)
    other = trainer.step(1, 4, trainer.worker_names(1)[:1], loss="-0x0.0p+0")
    words = check_row_evidence(run.told(one, other), trainer.run)
    assert "row 4 is another" in words
    trainer.train(1, 4, 4)
    again = [trainer.steps[1][4], other]
    assert "two rows are signed for step 4" in check_row_evidence(run.told(*again), trainer.run)


def honest_evidence(run: Any) -> bytes:
    run.trainer.train(1, 1, 6)
    return run.told(run.trainer.segment(1, 1, 4), run.trainer.segment(1, 5, 6))


def by_another_worker(run: Any) -> bytes:
    run.trainer.train(1, 1, 6)
    names = run.trainer.worker_names(1)
    return run.told(run.trainer.segment(1, 1, 4), run.trainer.segment(1, 3, 6, names[1]))


def forged_signature(run: Any) -> bytes:
    run.trainer.train(1, 1, 6)
    return run.told(run.trainer.segment(1, 1, 4), run.forged(run.trainer.segment(1, 3, 6)))


def of_two_attempts(run: Any) -> bytes:
    run.trainer.train(1, 1, 6)
    names = run.trainer.worker_names(1)
    one = run.trainer.segment(1, 1, 4)
    run.trainer.attempt(2)
    run.trainer.train(2, 1, 6)
    return run.told(one, run.trainer.segment(2, 3, 6, *names[:1]))


def attempt_by_another_key(run: Any) -> bytes:
    run.trainer.train(1, 1, 6)
    one, two = run.trainer.segment(1, 1, 4), run.trainer.segment(1, 3, 6)
    payload = run.trainer.attempts[1].payload
    stranger = sign(payload, [run.lab.key("stranger")])
    return encode_row_evidence(run.trainer.genesis, stranger, [one, two])


def of_another_run(run: Any) -> bytes:
    other = run.lab.Lab(name="other", workers=2)
    other.attempt(1)
    other.train(1, 1, 6)
    records = [other.segment(1, 1, 4), other.segment(1, 3, 6)]
    return encode_row_evidence(other.genesis, other.attempts[1], records)


def attempt_of_another_run(run: Any) -> bytes:
    # The same run key, and so a signature that holds.
    other = run.lab.Lab(name="lab", workers=2, steps=7)
    other.attempt(1)
    other.train(1, 1, 6)
    records = [other.segment(1, 1, 4), other.segment(1, 3, 6)]
    return encode_row_evidence(run.trainer.genesis, other.attempts[1], records)


def attempt_by_a_stranger(run: Any) -> bytes:
    # Anybody can write a genesis with a key of his own, and an attempt that names this run.
    other = run.lab.Lab(name="stranger", workers=2)
    payload = decode_statement(other.attempt(1).payload)
    claimed = replace(payload, run=run.trainer.run, resumed_from=run.trainer.run)
    other.attempts[1] = run.lab.signed(claimed, "stranger")
    other.train(1, 1, 6)
    records = [other.segment(1, 1, 4), other.segment(1, 3, 6)]
    return encode_row_evidence(other.genesis, other.attempts[1], records)


@pytest.mark.parametrize(
    "evidence",
    [
        attempt_by_a_stranger,
        attempt_of_another_run,
        honest_evidence,
        by_another_worker,
        forged_signature,
        of_two_attempts,
        attempt_by_another_key,
        of_another_run,
        lambda run: honest_evidence(run).replace(b"row eq", b"row eQ"),
        lambda run: b"{}",
    ],
)
def test_evidence_that_shows_nothing_is_refused(run: Any, evidence: Callable[[Any], bytes]) -> None:
    with pytest.raises(AttestError) as refusal:
        check_row_evidence(evidence(run), run.trainer.run)
    assert isinstance(refusal.value, FormatError | RefusedError)
