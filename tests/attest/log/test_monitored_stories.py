"""A monitor shows what a log should not have taken, and accuses nobody else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.envelope import Envelope
from attest.equivocation import check_row_evidence
from attest.errors import RefusedError
from attest.log.sequencer import LocalLog
from attest.merkle import leaf_hash, tree_root
from attest.monitor import Watched, watch
from attest.statements import Segment, Status, decode_statement


@pytest.fixture
def run(run_directory: Path, lab: ModuleType, hosts: ModuleType) -> Any:
    started = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1, segments="every 4")
    return started


class Shown:
    """A log whose operator let anything in."""

    def __init__(self, lab: ModuleType, *envelopes: Envelope) -> None:
        self.envelopes = list(envelopes)
        root = tree_root([leaf_hash(envelope.to_bytes()) for envelope in envelopes])
        head = Checkpoint("log.example/runs", len(envelopes), root)
        self._note = sign_checkpoint(head, lab.key("log")).to_bytes()

    def published(self) -> bytes:
        return self._note

    def entries(self, start: int, stop: int) -> Iterator[Envelope]:
        return iter(self.envelopes[start:stop])


def monitored(run: Any, *records: Envelope, contract: str = "") -> Watched:
    trainer = run.trainer
    shown = Shown(run.lab, trainer.published, trainer.genesis, trainer.attempts[1], *records)
    return watch(shown, contract or trainer.contract.id, run.lab.key("watch"), "watchers")


def conflicts(watched: Watched) -> dict[str, tuple[int, ...]]:
    said = decode_statement(watched.envelope.payload)
    assert isinstance(said, Status)
    return {entries.run: entries.conflicts for entries in said.runs}


def test_monitor_signs_for_one_story(run: Any) -> None:
    rows = run.trainer.train(1, 1, 8)
    records = [run.trainer.segment(1, 1, 4), *rows, run.trainer.segment(1, 5, 8)]
    watched = monitored(run, *records)
    assert watched.accused == () and conflicts(watched) == {run.trainer.run: ()}


@pytest.mark.parametrize("kind", ["segments", "steps inside", "step at the end"])
def test_monitor_shows_two_stories_and_lists_them_as_conflicts(run: Any, kind: str) -> None:
    trainer = run.trainer
    rows = trainer.train(1, 1, 8)
    honest = trainer.segment(1, 1, 4)
    if kind == "segments":
        records, places = [honest, trainer.segment(1, 4, 8)], (3, 4)
    elif kind == "steps inside":
        lie = trainer.segment(1, 1, 4, rows_root=run.lab.digest("other"))
        records, places = [*rows, lie], (11,)
    else:
        records, places = [honest, trainer.step(1, 4, loss="-0x0.0p+0")], (3,)
    watched = monitored(run, *records)
    (found,) = watched.accused
    assert found.run == trainer.run and "tells two stories" in str(found.error)
    assert isinstance(found.error.evidence, bytes)
    assert check_row_evidence(found.error.evidence, trainer.run)
    assert conflicts(watched) == {trainer.run: places}


@pytest.mark.parametrize("steps", [100, 7], ids=["this contract", "another contract"])
def test_lying_run_of_a_stranger_costs_no_other_run_its_status(
    run: Any, log: LocalLog, steps: int
) -> None:
    trainer, lab = run.trainer, run.lab
    liar = lab.Lab(name="liar", steps=steps)
    log.append([*trainer.opening(), *trainer.train(1, 1, 3)], keys=[trainer.author])
    log.append(liar.opening())
    # Every one of these is admitted: a log sees the end of a segment's rows and no more.
    log.append([*liar.train(1, 1, 4), liar.segment(1, 1, 4, rows_root=lab.digest("other"))])
    log.checkpoint()
    watched = watch(log, trainer.contract.id, lab.key("watch"), "watchers")
    listed = conflicts(watched)
    assert listed.pop(trainer.run) == ()
    assert listed == ({liar.run: (log.size - 1,)} if steps == 100 else {})
    assert [found.run for found in watched.accused] == list(listed)


def test_segment_of_more_steps_than_anybody_counts_holds_no_reader_up(run: Any) -> None:
    rows = run.trainer.train(1, 1, 2)
    endless = run.trainer.segment(1, 1, 2)
    statement = decode_statement(endless.payload)
    assert isinstance(statement, Segment)
    name = run.trainer.worker_names(1)[0]
    endless = run.lab.signed(replace(statement, last=2**53 - 1), name)
    assert monitored(run, *rows, endless).accused == ()


def test_evidence_of_a_long_segment_can_be_checked(run: Any) -> None:
    trainer = run.trainer
    rows = trainer.train(1, 1, 1500)
    lie = trainer.segment(1, 1, 1500, rows_root=run.lab.digest("other"))
    words = "its rows have another root"
    assert words in check_row_evidence(run.told(lie, *rows), trainer.run)


def test_monitor_accuses_nobody_by_records_that_nobody_signed(run: Any) -> None:
    run.trainer.train(1, 1, 8)
    made_up = run.forged(run.trainer.segment(1, 4, 8))
    with pytest.raises(RefusedError):
        monitored(run, run.trainer.segment(1, 1, 4), made_up)
