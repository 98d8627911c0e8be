"""Segments reach the log once all hosts signed their rows, and their rows are found again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.attempt_rows import AttemptRows, OtherRowsError, RowsWithheldError
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.envelope import Envelope, Signature, sign
from attest.equivocation import check_row_evidence, encode_row_evidence
from attest.errors import AttestError, FormatError, RefusedError
from attest.log.fsck import fsck
from attest.log.joiner import DivergenceError
from attest.log.sequencer import LocalLog
from attest.log.shipper import Progress, Shipper
from attest.merkle import leaf_hash, tree_root
from attest.monitor import Watched, watch
from attest.segment import segment_file
from attest.statements import Attempt, Segment, Status, Step, decode_statement
from attest.step_file import StepFile


class Run:
    """A run directory of two hosts that sign every row, the first of them segments besides."""

    def __init__(self, directory: Path, lab: ModuleType, trainer: Any) -> None:
        self.directory = directory
        self.lab = lab
        self.trainer = trainer
        (directory / "statements").mkdir()
        (directory / "steps").mkdir()
        self.state("contract", trainer.published)
        self.state("genesis", trainer.genesis)

    @property
    def steps(self) -> Path:
        return self.directory / "steps"

    def state(self, name: str, envelope: Envelope) -> None:
        (self.directory / "statements" / f"{name}.json").write_bytes(envelope.to_bytes())

    def begin(self, number: int, *, segments: str = "every 4", **after: Any) -> None:
        attempt = self.trainer.attempt(number, segments=segments, **after)
        self.state(f"attempt-{number}", attempt)

    def train(self, number: int, first: int, last: int, *, ranks: Sequence[int] = (0, 1)) -> None:
        names = self.trainer.worker_names(number)
        rows = self.trainer.train(number, first, last)
        for rank in ranks:
            self.write(number, rank, [sign(r.payload, [self.lab.key(names[rank])]) for r in rows])

    def write(self, number: int, rank: int, envelopes: Sequence[Envelope]) -> None:
        with StepFile(self.steps / f"{number}-{rank}.jsonl") as file:
            for envelope in envelopes:
                file.append(envelope)

    def cut(self, number: int, first: int, last: int, **changes: Any) -> Envelope:
        envelope = self.trainer.segment(number, first, last, **changes)
        with StepFile(segment_file(self.steps, number)) as file:
            file.append(envelope)
        return envelope

    def reader(self, number: int = 1) -> AttemptRows:
        envelope = self.trainer.attempts[number]
        attempt = decode_statement(envelope.payload)
        assert isinstance(attempt, Attempt)
        return AttemptRows(self.steps, attempt, self.lab.record(envelope))


@pytest.fixture
def run(run_directory: Path, lab: ModuleType) -> Run:
    started = Run(run_directory, lab, lab.Lab(workers=2))
    started.begin(1)
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


# --- shipping ---


def test_segments_are_logged_instead_of_steps(run: Run, log: LocalLog) -> None:
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


def test_segment_waits_for_the_last_hosts_rows(run: Run, log: LocalLog) -> None:
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


def test_attempt_goes_on_from_a_segment_or_a_step_by_either_kind(run: Run, log: LocalLog) -> None:
    run.train(1, 1, 6)
    run.cut(1, 1, 5)
    run.begin(2, after=(1, 5), of="segment", segments="off")
    run.train(2, 6, 8)
    run.begin(3, after=(2, 7))
    run.train(3, 8, 9)
    run.cut(3, 8, 9)
    run.begin(4, after=(3, 9), of="segment")
    run.train(4, 10, 10)
    run.cut(4, 10, 10)
    Shipper(run.directory, log).drain()
    # Row 6 of the first attempt is in no segment: it stays where its hosts keep it.
    assert logged(log) == [(1, 5), 6, 7, 8, (8, 9), (10, 10)]
    fsck(run.directory / "log")


def test_hosts_that_diverge_are_named_before_their_segment_ends(run: Run, log: LocalLog) -> None:
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
    run: Run, log: LocalLog, changes: str
) -> None:
    run.train(1, 1, 8)
    run.cut(1, 1, 4)
    run.cut(1, 5, 8, **{changes: run.lab.digest("other")})
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "segment rows"
    assert "steps 5 to 8" in str(refusal.value)
    assert logged(log) in ([], [(1, 4)])


def test_segments_over_moved_steps_are_not_logged(run: Run, log: LocalLog) -> None:
    run.train(1, 1, 8)
    run.cut(1, 2, 4)
    with pytest.raises(RefusedError) as refusal:
        Shipper(run.directory, log).drain()
    assert refusal.value.check == "segment rows"


def test_segment_file_by_another_key_or_of_another_kind_is_named(run: Run, log: LocalLog) -> None:
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


# --- reading the rows again ---


def take(run: Run, *segments: Envelope) -> list[tuple[Envelope, ...]]:
    reader = run.reader()
    found: list[tuple[Envelope, ...]] = []
    for envelope in segments:
        segment = decode_statement(envelope.payload)
        assert isinstance(segment, Segment)
        found.append(reader.take(segment))
    return found


def test_rows_of_segments_are_found_under_every_hosts_signature(run: Run) -> None:
    run.train(1, 1, 6)
    one, two = take(run, run.cut(1, 1, 4), run.cut(1, 5, 6))
    assert [row.record_hash() for row in (*one, *two)] == [
        run.trainer.steps[1][step].record_hash() for step in range(1, 7)
    ]
    assert all(row == run.trainer.steps[1][step] for step, row in enumerate(one, start=1))


def changed_line(path: Path, number: int, change: Callable[[Envelope], Envelope]) -> None:
    lines = path.read_bytes().splitlines()
    lines[number] = change(Envelope.from_bytes(lines[number])).to_bytes()
    path.write_bytes(b"\n".join(lines) + b"\n")


def forged(envelope: Envelope) -> Envelope:
    return Envelope(envelope.payload, (Signature(envelope.signatures[0].keyid, bytes(64)),))


DAMAGE: dict[str, Callable[[Run], None]] = {
    "no file": lambda run: (run.steps / "1-1.jsonl").unlink(),
    "a short file": lambda run: (run.steps / "1-1.jsonl").write_bytes(
        b"".join((run.steps / "1-1.jsonl").read_bytes().splitlines(keepends=True)[:3])
    ),
    "a dropped row": lambda run: (run.steps / "1-0.jsonl").write_bytes(
        b"".join((run.steps / "1-0.jsonl").read_bytes().splitlines(keepends=True)[1:])
    ),
    "a forged signature": lambda run: changed_line(run.steps / "1-1.jsonl", 2, forged),
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
def test_rows_that_are_missing_or_not_signed_are_refused(run: Run, name: str) -> None:
    run.train(1, 1, 4)
    segment = run.cut(1, 1, 4)
    DAMAGE[name](run)
    with pytest.raises(RefusedError) as refusal:
        take(run, segment)
    assert refusal.value.check == "segment rows"
    assert "segment of steps 1 to 4" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not isinstance(refusal.value, OtherRowsError)
    # A damaged disk accuses nobody; what two hosts signed does.
    lost = name not in ("hosts that went apart", "a signed line that is no row")
    assert isinstance(refusal.value, RowsWithheldError) == lost


def test_rows_of_another_attempt_are_refused(run: Run) -> None:
    run.train(1, 1, 4)
    segment = decode_statement(run.cut(1, 1, 4).payload)
    assert isinstance(segment, Segment)
    attempt = decode_statement(run.trainer.attempts[1].payload)
    assert isinstance(attempt, Attempt)
    reader = AttemptRows(run.steps, attempt, run.lab.digest("another attempt"))
    with pytest.raises(RefusedError, match="no row of this attempt"):
        reader.take(segment)


def test_committed_rows_that_do_not_follow_each_other_are_no_second_story(run: Run) -> None:
    run.train(1, 1, 2)
    names = run.trainer.worker_names(1)
    row = run.trainer.step(1, 3, names, prev=run.lab.digest("elsewhere"))
    for rank, name in enumerate(names):
        run.write(1, rank, [sign(row.payload, [run.lab.key(name)])])
    run.train(1, 4, 4)
    with pytest.raises(RefusedError, match="row 3 does not follow row 2") as refusal:
        take(run, run.cut(1, 1, 4))
    assert not isinstance(refusal.value, OtherRowsError)


# --- two stories ---


def told(run: Run, *records: Envelope, attempt: int = 1) -> bytes:
    return encode_row_evidence(run.trainer.genesis, run.trainer.attempts[attempt], records)


def test_rows_signed_otherwise_than_their_segment_are_evidence(run: Run) -> None:
    run.train(1, 1, 4)
    segment = run.cut(1, 1, 4, rows_root=run.lab.digest("other rows"))
    with pytest.raises(OtherRowsError) as caught:
        take(run, segment)
    evidence = told(run, segment, *caught.value.rows)
    assert "its rows have another root" in check_row_evidence(evidence, run.trainer.run)


def test_evidence_by_segments_and_by_steps_alone_is_checked(run: Run) -> None:
    trainer = run.trainer
    trainer.train(1, 1, 6)
    one, two = trainer.segment(1, 1, 4), trainer.segment(1, 3, 6)
    assert "two segments commit step 3" in check_row_evidence(told(run, one, two), trainer.run)
    other = trainer.step(1, 4, trainer.worker_names(1)[:1], loss="-0x0.0p+0")
    words = check_row_evidence(told(run, one, other), trainer.run)
    assert "row 4 is another" in words
    trainer.train(1, 4, 4)
    again = [trainer.steps[1][4], other]
    assert "two rows are signed for step 4" in check_row_evidence(told(run, *again), trainer.run)


def honest_evidence(run: Run) -> bytes:
    run.trainer.train(1, 1, 6)
    return told(run, run.trainer.segment(1, 1, 4), run.trainer.segment(1, 5, 6))


def by_another_worker(run: Run) -> bytes:
    run.trainer.train(1, 1, 6)
    names = run.trainer.worker_names(1)
    return told(run, run.trainer.segment(1, 1, 4), run.trainer.segment(1, 3, 6, names[1]))


def forged_signature(run: Run) -> bytes:
    run.trainer.train(1, 1, 6)
    return told(run, run.trainer.segment(1, 1, 4), forged(run.trainer.segment(1, 3, 6)))


def of_two_attempts(run: Run) -> bytes:
    run.trainer.train(1, 1, 6)
    names = run.trainer.worker_names(1)
    one = run.trainer.segment(1, 1, 4)
    run.trainer.attempt(2)
    run.trainer.train(2, 1, 6)
    return told(run, one, run.trainer.segment(2, 3, 6, *names[:1]))


def attempt_by_another_key(run: Run) -> bytes:
    run.trainer.train(1, 1, 6)
    one, two = run.trainer.segment(1, 1, 4), run.trainer.segment(1, 3, 6)
    payload = run.trainer.attempts[1].payload
    stranger = sign(payload, [run.lab.key("stranger")])
    return encode_row_evidence(run.trainer.genesis, stranger, [one, two])


def of_another_run(run: Run) -> bytes:
    other = run.lab.Lab(name="other", workers=2)
    other.attempt(1)
    other.train(1, 1, 6)
    records = [other.segment(1, 1, 4), other.segment(1, 3, 6)]
    return encode_row_evidence(other.genesis, other.attempts[1], records)


def attempt_of_another_run(run: Run) -> bytes:
    # The same run key, and so a signature that holds.
    other = run.lab.Lab(name="lab", workers=2, steps=7)
    other.attempt(1)
    other.train(1, 1, 6)
    records = [other.segment(1, 1, 4), other.segment(1, 3, 6)]
    return encode_row_evidence(run.trainer.genesis, other.attempts[1], records)


def attempt_by_a_stranger(run: Run) -> bytes:
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
def test_evidence_that_shows_nothing_is_refused(run: Run, evidence: Callable[[Run], bytes]) -> None:
    with pytest.raises(AttestError) as refusal:
        check_row_evidence(evidence(run), run.trainer.run)
    assert isinstance(refusal.value, FormatError | RefusedError)


# --- a monitor reads what a log should not have taken ---


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


def monitored(run: Run, *records: Envelope, contract: str = "") -> Watched:
    trainer = run.trainer
    shown = Shown(run.lab, trainer.published, trainer.genesis, trainer.attempts[1], *records)
    return watch(shown, contract or trainer.contract.id, run.lab.key("watch"), "watchers")


def conflicts(watched: Watched) -> dict[str, tuple[int, ...]]:
    said = decode_statement(watched.envelope.payload)
    assert isinstance(said, Status)
    return {entries.run: entries.conflicts for entries in said.runs}


def test_monitor_signs_for_one_story(run: Run) -> None:
    rows = run.trainer.train(1, 1, 8)
    records = [run.trainer.segment(1, 1, 4), *rows, run.trainer.segment(1, 5, 8)]
    watched = monitored(run, *records)
    assert watched.accused == () and conflicts(watched) == {run.trainer.run: ()}


@pytest.mark.parametrize("kind", ["segments", "steps inside", "step at the end"])
def test_monitor_shows_two_stories_and_lists_them_as_conflicts(run: Run, kind: str) -> None:
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
    run: Run, log: LocalLog, steps: int
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


def test_segment_of_more_steps_than_anybody_counts_holds_no_reader_up(run: Run) -> None:
    rows = run.trainer.train(1, 1, 2)
    endless = run.trainer.segment(1, 1, 2)
    statement = decode_statement(endless.payload)
    assert isinstance(statement, Segment)
    name = run.trainer.worker_names(1)[0]
    endless = run.lab.signed(replace(statement, last=2**53 - 1), name)
    assert monitored(run, *rows, endless).accused == ()


def test_evidence_of_a_long_segment_can_be_checked(run: Run) -> None:
    trainer = run.trainer
    rows = trainer.train(1, 1, 1500)
    lie = trainer.segment(1, 1, 1500, rows_root=run.lab.digest("other"))
    words = "its rows have another root"
    assert words in check_row_evidence(told(run, lie, *rows), trainer.run)


def test_monitor_accuses_nobody_by_records_that_nobody_signed(run: Run) -> None:
    run.trainer.train(1, 1, 8)
    made_up = forged(run.trainer.segment(1, 4, 8))
    with pytest.raises(RefusedError):
        monitored(run, run.trainer.segment(1, 1, 4), made_up)
