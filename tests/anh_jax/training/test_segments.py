"""Where segments end, who signs them, and when an attempt logs them instead of steps."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.errors import AnhError
from anh_jax.experiment import load_experiment
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.loop import CompletedStep, StepBatch
from anh_jax.training.observers.checkpointing import Checkpointing
from anh_jax.training.recorder import StepFacts, StepRecorder
from anh_jax.training.segments import (
    FASTEST_STEP_SECONDS,
    LARGEST_STEP_RECORD,
    LONGEST,
    SegmentCutter,
    decide_segments,
    step_record_bytes,
)
from attest.envelope import Envelope, sign
from attest.keys import PrivateKey
from attest.segment import check_rows, mark_of, segmented
from attest.statements import (
    Attempt,
    Mesh,
    Scalars,
    Segment,
    decode_statement,
    encode_statement,
)
from attest.step_file import StepFile, SyncPolicy, read

ONE = "0x1.0000000000000p+0"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


RUN, ATTEMPT = digest("run"), digest("attempt")


class Host:
    """One host of an attempt that digests the state every so many steps."""

    def __init__(
        self, folder: Path, rank: int, *, every: int, digest_every: int = 1, last_step: int = 12
    ) -> None:
        self.key = PrivateKey.generate()
        self.rows = folder / f"1-{rank}.jsonl"
        self.segments = folder / "1-segments.jsonl"
        self._digest_every, self._last = digest_every, last_step
        # Nothing is synced but where the code says so.
        lazy = SyncPolicy(records=10_000, seconds=3600.0)
        self.cutter = SegmentCutter(
            run=RUN,
            attempt=ATTEMPT,
            every=every,
            last_step=last_step,
            file=StepFile(self.segments) if rank == 0 else None,
        )
        self.recorder = StepRecorder(
            run=RUN,
            attempt=ATTEMPT,
            key=self.key,
            file=StepFile(self.rows, lazy),
            previous=RUN,
            bound=1.0,
            segments=self.cutter,
        )

    def take(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            hashed = step % self._digest_every == 0 or step == self._last
            self.recorder.record(
                StepFacts(
                    step=step,
                    gradient_root=digest(f"gradient {step}"),
                    state_root=digest(f"state {step}") if hashed else None,
                    batch_root=digest(f"batch {step}"),
                    scalars=Scalars(ONE, 1, ONE),
                    loss=1.0,
                )
            )

    def cut(self) -> list[tuple[Envelope, Segment]]:
        found: list[tuple[Envelope, Segment]] = []
        for envelope in read(self.segments):
            segment = decode_statement(envelope.payload)
            assert isinstance(segment, Segment)
            found.append((envelope, segment))
        return found


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    return lambda rank=0, **settings: Host(tmp_path, rank, **settings)


@pytest.mark.parametrize(
    ("every", "digest_every", "ends"),
    [
        (5, 1, [5, 10, 12]),
        (1, 1, list(range(1, 13))),
        (100, 1, [12]),
        # A segment waits for a row that commits the state.
        (2, 3, [3, 6, 9, 12]),
        (5, 4, [8, 12]),
        (1, 100, [12]),
    ],
)
def test_segment_ends_at_a_state_root_once_it_is_full(
    host: Any, every: int, digest_every: int, ends: list[int]
) -> None:
    one = host(every=every, digest_every=digest_every)
    one.take(1, 12)
    one.recorder.close()
    segments = [segment for _, segment in one.cut()]
    assert [segment.last for segment in segments] == ends
    assert [segment.first for segment in segments] == [1, *(end + 1 for end in ends[:-1])]
    rows = [mark_of(envelope) for envelope in read(one.rows)]
    for segment in segments:
        check_rows(segment, rows[segment.first - 1 : segment.last])


def test_a_place_to_resume_from_is_a_segment_and_the_same_on_every_host(host: Any) -> None:
    hosts = [host(rank, every=5) for rank in (0, 1)]
    places = []
    for one in hosts:
        one.take(1, 7)
        places.append(one.recorder.place())
        # Nothing is cut twice.
        assert one.recorder.place() == places[-1]
    assert places[0] == places[1]
    (_, first), (envelope, second) = hosts[0].cut()
    assert [(s.first, s.last) for s in (first, second)] == [(1, 5), (6, 7)]
    assert places[0].record == envelope.record_hash().hex()
    assert places[0].row == second.last_row
    assert envelope.signatures[0].keyid == hosts[0].key.keyid
    hosts[0].take(8, 12)
    assert [segment.first for _, segment in hosts[0].cut()] == [1, 6, 8]


def test_without_segments_a_place_is_the_steps_own_record(tmp_path: Path) -> None:
    one = Host(tmp_path, 0, every=5)
    one.recorder = StepRecorder(
        run=RUN, attempt=ATTEMPT, key=one.key, file=StepFile(tmp_path / "plain.jsonl"),
        previous=RUN, bound=1.0,
    )  # fmt: skip
    with pytest.raises(AnhError, match="no row of this attempt is signed yet"):
        one.recorder.place()
    one.take(1, 3)
    last = list(read(tmp_path / "plain.jsonl"))[-1]
    assert one.recorder.place().record == last.record_hash().hex()
    assert one.cut() == []


def test_rows_are_durable_before_the_segment_that_commits_them(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = host(every=5)
    written: list[str] = []
    sync, append = StepFile.sync, StepFile.append

    def watched_sync(file: StepFile) -> None:
        written.append(f"sync {file._path.name}")
        sync(file)

    def watched_append(file: StepFile, envelope: Envelope) -> None:
        written.append(f"append {file._path.name}")
        append(file, envelope)

    monkeypatch.setattr(StepFile, "sync", watched_sync)
    monkeypatch.setattr(StepFile, "append", watched_append)
    one.take(1, 5)
    rows, segments = one.rows.name, one.segments.name
    at = written.index(f"append {segments}")
    assert f"sync {rows}" in written[written.index(f"append {rows}") : at]
    assert f"append {rows}" not in written[at - 1 :]
    assert f"sync {segments}" in written[at:]


# --- when ---


@pytest.mark.parametrize(
    ("setting", "workers", "seconds", "every"),
    [
        ("off", 1, 0.001, 0),
        ("off", 300, 10.0, 0),
        ("every 7", 1, 10.0, 7),
        ("auto", 1, 10.0, 0),
        ("auto", 4, 10.0, 0),
        ("auto", 5, 10.0, 1),
        ("auto", 256, 0.5, 2),
        ("auto", 1, FASTEST_STEP_SECONDS, 0),
        ("auto", 1, 0.015, 66),
        ("auto", 1, 0.0001, LONGEST),
        # Nobody measured: as few records as there may be.
        ("auto", 256, 0.0, LONGEST),
        ("auto", 1, 0.0, 0),
    ],
)
def test_what_is_logged_follows_from_workers_and_speed(
    setting: str, workers: int, seconds: float, every: int
) -> None:
    decision = decide_segments(setting, workers=workers, step_seconds=seconds)
    assert decision.every == every
    facts = decision.facts
    attempt = Attempt(RUN, RUN, 1, 0, (digest("k"),), Mesh(1, 1, 1), 1, facts, "start")
    assert segmented(attempt) == (every > 0)
    assert (decision.why == "") == (setting != "auto")


def test_steps_that_no_log_takes_are_refused_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(AnhError, match=r"attest\.segments: off: a step record of 400 workers"):
        decide_segments("off", workers=400, step_seconds=1.0)
    assert decide_segments("auto", workers=400, step_seconds=1.0).every == 1


@given(st.integers(1, 40))
def test_size_of_a_step_record_is_an_upper_bound_and_close(workers: int) -> None:
    from attest.statements import Row, Step

    keys = [PrivateKey(bytes([number]) * 32) for number in range(1, workers + 1)]
    row = Row(
        run=RUN, step=70_000, prev=digest("p"), gradient_root=RUN, state_root=RUN, batch_root=RUN,
        scalars=Scalars("0x1.8f5c28f5c28f6p-1", 1, "0x1.0000000000000p+17"),
        loss="-0x1.2c3d70a3d70a4p+18", bound="0x1.a36e2eb1c432dp-14",
    )  # fmt: skip
    size = len(sign(encode_statement(Step(ATTEMPT, row)), keys).to_bytes())
    assert size <= step_record_bytes(workers) <= size + 24


def test_step_records_pass_2_kb_with_the_fifth_worker() -> None:
    assert step_record_bytes(4) <= LARGEST_STEP_RECORD < step_record_bytes(5)


# --- the configuration ---

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "digits.yaml"


@pytest.mark.parametrize("setting", ["off", "auto", "every 1", "every 9999"])
def test_segments_are_set_by_the_config(setting: str) -> None:
    assert load_experiment(CONFIG, [f"attest.segments={setting}"]).attest.segments == setting


@pytest.mark.parametrize("setting", ["on", "every", "every 0", "every 10000", "each 3"])
def test_other_words_for_segments_are_refused(setting: str) -> None:
    with pytest.raises(AnhError, match=r"attest\.segments"):
        load_experiment(CONFIG, [f"attest.segments={setting}"])


def test_checkpoints_without_a_state_root_are_refused_beside_segments() -> None:
    changes = ["attest.segments=every 5", "attest.digest=every 8", "checkpoints.every_steps=12"]
    with pytest.raises(AnhError, match=r"attest\.segments: .* is no multiple of attest\.digest"):
        load_experiment(CONFIG, changes)
    for others in (["checkpoints.every_steps=16"], ["attest.digest=auto"], ["attest.segments=off"]):
        load_experiment(CONFIG, [*changes, *others])


# --- checkpoints ---


class Saved(TrainingCheckpoints):
    """Training checkpoints that only say of which steps they are."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def save(self, step: int, state: Any, position: Any) -> None:
        self.steps.append(step)

    def wait(self) -> None: ...


@pytest.mark.parametrize(
    ("stop_at", "saved", "ended"),
    [(None, [6, 9, 12], None), (4, [6], 6), (6, [6], 6), (11, [6, 9, 12], 12)],
)
def test_checkpoints_and_a_stop_wait_for_a_step_that_may_be_saved(
    stop_at: int | None, saved: list[int], ended: int | None
) -> None:
    kept, asked = Saved(), list[int]()

    def should_stop() -> bool:
        asked.append(len(asked) + 1)
        return asked[-1] == stop_at

    checkpointing = Checkpointing(
        kept,
        every=4,
        last_step=12,
        place=lambda: Position(row=RUN, record=RUN),
        should_stop=should_stop,
        announce=lambda step: None,
        may_save=lambda step: step % 3 == 0,
    )
    for step in range(1, 13):
        batch = StepBatch(step, (), RUN)
        checkpointing.after_step(CompletedStep(step, {}, {}, {}, batch, 0.0))
        if checkpointing.stop(step):
            break
    assert kept.steps == saved
    assert checkpointing.stopping == (ended is not None)
    # Asked exactly once a step, also while a stop waits.
    assert len(asked) == (ended or 12)
