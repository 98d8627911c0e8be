"""The rows of logged segments are found again under every host's signature, or named."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.attempt_rows import AttemptRows, OtherRowsError, RowsWithheldError
from attest.envelope import Envelope, sign
from attest.errors import RefusedError
from attest.statements import Attempt, Segment, decode_statement


@pytest.fixture
def run(run_directory: Path, lab: ModuleType, hosts: ModuleType) -> Any:
    started = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1, segments="every 4")
    return started


def test_rows_of_segments_are_found_under_every_hosts_signature(run: Any) -> None:
    run.train(1, 1, 6)
    one, two = run.take(run.cut(1, 1, 4), run.cut(1, 5, 6))
    assert [row.record_hash() for row in (*one, *two)] == [
        run.trainer.steps[1][step].record_hash() for step in range(1, 7)
    ]
    assert all(row == run.trainer.steps[1][step] for step, row in enumerate(one, start=1))


def changed_line(path: Path, number: int, change: Callable[[Envelope], Envelope]) -> None:
    lines = path.read_bytes().splitlines()
    lines[number] = change(Envelope.from_bytes(lines[number])).to_bytes()
    path.write_bytes(b"\n".join(lines) + b"\n")


DAMAGE: dict[str, Callable[[Any], None]] = {
    "no file": lambda run: (run.steps / "1-1.jsonl").unlink(),
    "a short file": lambda run: (run.steps / "1-1.jsonl").write_bytes(
        b"".join((run.steps / "1-1.jsonl").read_bytes().splitlines(keepends=True)[:3])
    ),
    "a dropped row": lambda run: (run.steps / "1-0.jsonl").write_bytes(
        b"".join((run.steps / "1-0.jsonl").read_bytes().splitlines(keepends=True)[1:])
    ),
    "a forged signature": lambda run: changed_line(run.steps / "1-1.jsonl", 2, run.forged),
    "damaged bytes": lambda run: (run.steps / "1-0.jsonl").write_bytes(
        (run.steps / "1-0.jsonl").read_bytes()[5:]
    ),
    "another host's key": lambda run: (run.steps / "1-1.jsonl").write_bytes(
        (run.steps / "1-0.jsonl").read_bytes()
    ),
    "a signed line that is no row": lambda run: changed_line(
        run.steps / "1-0.jsonl",
        2,
        lambda old: sign(b"no statement", [run.lab.key(run.trainer.worker_names(1)[0])]),
    ),
    "hosts that went apart": lambda run: changed_line(
        run.steps / "1-1.jsonl",
        2,
        lambda old: run.trainer.step(1, 3, run.trainer.worker_names(1)[1:], loss="-0x0.0p+0"),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_rows_that_are_missing_or_not_signed_are_refused(run: Any, name: str) -> None:
    run.train(1, 1, 4)
    segment = run.cut(1, 1, 4)
    DAMAGE[name](run)
    with pytest.raises(RefusedError) as refusal:
        run.take(segment)
    assert refusal.value.check == "segment rows"
    assert "segment of steps 1 to 4" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not isinstance(refusal.value, OtherRowsError)
    # A damaged disk accuses nobody; what two hosts signed does.
    lost = name not in ("hosts that went apart", "a signed line that is no row")
    assert isinstance(refusal.value, RowsWithheldError) == lost


def test_rows_of_another_attempt_are_refused(run: Any) -> None:
    run.train(1, 1, 4)
    segment = decode_statement(run.cut(1, 1, 4).payload)
    assert isinstance(segment, Segment)
    attempt = decode_statement(run.trainer.attempts[1].payload)
    assert isinstance(attempt, Attempt)
    reader = AttemptRows(run.steps, attempt, run.lab.digest("another attempt"))
    with pytest.raises(RefusedError, match="no row of this attempt"):
        reader.take(segment)


def test_committed_rows_that_do_not_follow_each_other_are_no_second_story(run: Any) -> None:
    run.train(1, 1, 2)
    names = run.trainer.worker_names(1)
    row = run.trainer.step(1, 3, names, prev=run.lab.digest("elsewhere"))
    for rank, name in enumerate(names):
        run.write(1, rank, [sign(row.payload, [run.lab.key(name)])])
    run.train(1, 4, 4)
    with pytest.raises(RefusedError, match="row 3 does not follow row 2") as refusal:
        run.take(run.cut(1, 1, 4))
    assert not isinstance(refusal.value, OtherRowsError)
