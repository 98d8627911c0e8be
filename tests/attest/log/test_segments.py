"""Segments reach the log once all hosts have signed their rows."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.envelope import sign
from attest.errors import FormatError, RefusedError
from attest.log.fsck import fsck
from attest.log.joiner import DivergenceError
from attest.log.sequencer import LocalLog
from attest.log.shipper import Progress, Shipper
from attest.segment import segment_file
from attest.statements import Segment, Step, decode_statement


@pytest.fixture
def run(run_directory: Path, lab: ModuleType, hosts: ModuleType) -> Any:
    started = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1, segments="every 4")
    return started


def logged(log: LocalLog) -> list[Any]:
    """Return what the log holds of steps: `(first, last)` of segments, numbers of steps."""
    found: list[Any] = []
    for envelope in log.entries(0, log.size):
        match decode_statement(envelope.payload):
            case Segment(first=first, last=last):
                assert len(envelope.signatures) == 1
                found.append((first, last))
            case Step(row=row):
                found.append(row.step)
            case _:
                continue
    return found


def test_segments_are_logged_instead_of_steps(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 300)
    run.cut(1, 1, 4)
    run.cut(1, 5, 290)
    shipper = Shipper(run.directory, log)
    assert shipper.drain() == Progress(300, 290, 290)
    assert logged(log) == [(1, 4), (5, 290)]
    assert shipper.lag == 10
    assert log.last_step(run.lab.record(run.trainer.attempts[1])) == 290
    run.cut(1, 291, 300)
    run.state("final", run.trainer.final(300))
    assert shipper.drain() == Shipper(run.directory, log).drain() == Progress(300, 300, 300)
    assert logged(log) == [(1, 4), (5, 290), (291, 300)]
    fsck(run.directory / "log")


def test_segment_waits_for_the_last_hosts_rows(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 4)
    run.train(1, 5, 8, ranks=[0])
    run.cut(1, 1, 4)
    run.cut(1, 5, 8)
    shipper = Shipper(run.directory, log)
    assert shipper.drain() == Progress(8, 4, 4)
    rows = [run.trainer.steps[1][step].payload for step in range(5, 9)]
    names = run.trainer.worker_names(1)
    run.write(1, 1, [sign(row, [run.lab.key(names[1])]) for row in rows[:3]])
    assert shipper.drain().logged == 4
    run.write(1, 1, [sign(rows[3], [run.lab.key(names[1])])])
    assert shipper.drain() == Progress(8, 8, 8)


def test_attempt_goes_on_from_a_segment_or_a_step_by_either_kind(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 6)
    run.cut(1, 1, 5)
    run.begin(2, after=(1, 5), of="segment", segments="off")
    run.train(2, 6, 8)
    run.begin(3, after=(2, 7), segments="every 4")
    run.train(3, 8, 9)
    run.cut(3, 8, 9)
    run.begin(4, after=(3, 9), of="segment", segments="every 4")
    run.train(4, 10, 10)
    run.cut(4, 10, 10)
    Shipper(run.directory, log).drain()
    # Row 6 of the first attempt is in no segment: it stays where its hosts keep it.
    assert logged(log) == [(1, 5), 6, 7, 8, (8, 9), (10, 10)]
    fsck(run.directory / "log")


def test_hosts_that_diverge_are_named_before_their_segment_ends(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 2)
    names = run.trainer.worker_names(1)
    for rank, state in enumerate(("same", "another")):
        run.write(
            1, rank, [run.trainer.step(1, 3, [names[rank]], state_root=run.lab.digest(state))]
        )
    with pytest.raises(DivergenceError, match="step 3"):
        Shipper(run.directory, log).drain()


@pytest.mark.parametrize("changes", ["rows_root", "last_row", "state_root", "prev"])
def test_segment_over_other_rows_than_the_hosts_signed_is_not_logged(
    run: Any, log: LocalLog, changes: str
) -> None:
    run.train(1, 1, 8)
    run.cut(1, 1, 4)
    run.cut(1, 5, 8, **{changes: run.lab.digest("other")})
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "segment rows"
    assert "steps 5 to 8" in str(refusal.value)
    assert logged(log) in ([], [(1, 4)])


def test_segments_over_moved_steps_are_not_logged(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 8)
    run.cut(1, 2, 4)
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "segment rows"


def test_segment_file_by_another_key_or_of_another_kind_is_named(run: Any, log: LocalLog) -> None:
    run.train(1, 1, 4)
    names = run.trainer.worker_names(1)
    wrong = run.trainer.segment(1, 1, 4, names[1])
    path = segment_file(run.steps, 1)
    path.write_bytes(wrong.to_bytes() + b"\n")
    with pytest.raises(FormatError, match=r"1-segments\.jsonl: row 1 is not signed by this host"):
        Shipper(run.directory, log).drain()
    step = sign(run.trainer.steps[1][1].payload, [run.lab.key(names[0])])
    path.write_bytes(step.to_bytes() + b"\n")
    with pytest.raises(FormatError, match="segment file holds a record of kind step"):
        Shipper(run.directory, log).drain()
