"""Digests never hold up dispatch: what is started, updated, read and signed, and in which order."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anh_jax.digest.compose import TreeDigest
from anh_jax.digest.exchange import ReplicaError
from anh_jax.training.checkpoints import Position, TrainingCheckpoints
from anh_jax.training.executor import Executor
from anh_jax.training.loop import CompletedStep, StepBatch, train
from anh_jax.training.observers.attestation import Attestation, DigestSchedule
from anh_jax.training.observers.checkpointing import Checkpointing
from anh_jax.training.observers.metrics import MetricsFile
from anh_jax.training.recorder import StepFacts, StepRecorder

ROOT = bytes(range(32))
Event = tuple[str, int]


@dataclass
class Journal:
    """What happened, in order, and which rows were signed."""

    events: list[Event] = field(default_factory=list)
    compared: list[int] = field(default_factory=list)
    rows: list[StepFacts] = field(default_factory=list)

    def note(self, what: str, step: int) -> None:
        self.events.append((what, step))

    def at(self, what: str, step: int) -> int:
        return self.events.index((what, step))


class FakeExecutor(Executor):
    """Computes nothing: a state is the number of its steps."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def gradient(self, state: Any, pieces: Any) -> Any:
        step = state["at"] + 1
        self._journal.note("gradient", step)
        loss = jnp.float32(step)
        part = {"at": step}
        return {"gradient": part, "statistics": {}, "loss": loss, "weight": jnp.float32(2)}

    def scalars(self, outputs: Any) -> Any:
        finite = jnp.float32(1)
        return {"globalNorm": outputs["loss"], "finite": finite, "weight": outputs["weight"]}

    def update(self, state: Any, outputs: Any, scalars: Any, step: int) -> Any:
        self._journal.note("update", step)
        return {"at": step}


@dataclass(frozen=True)
class FakeDigest:
    """A digest whose result is noted when it is read."""

    journal: Journal
    name: str
    step: int
    corrupt: bool

    def result(self) -> TreeDigest:
        self.journal.note(f"{self.name} digest read", self.step)
        if self.corrupt:
            raise ReplicaError("digest: parameters/w: two devices hold different bits")
        return TreeDigest(ROOT, ROOT, ROOT, (), self.step, "blake3")


@dataclass(frozen=True)
class FakeDigester:
    """Starts digests that are never ready before they are read; `corrupt` is a step, or none."""

    journal: Journal
    lag: int
    corrupt: int | None = None

    def start(self, tree: Any, *, step: int, every_replica: bool = False) -> FakeDigest:
        name = "gradient" if "gradient" in tree else "state"
        self.journal.note(f"{name} digest started", step)
        if every_replica:
            self.journal.compared.append(step)
        return FakeDigest(self.journal, name, step, step == self.corrupt and name == "state")


class FakeRecorder(StepRecorder):
    """Signs nothing and keeps the rows."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def record(self, facts: StepFacts) -> Position:
        self._journal.note("signed", facts.step)
        self._journal.rows.append(facts)
        return Position(row=f"row {facts.step}", record=f"record {facts.step}")

    def place(self) -> Position:
        newest = self._journal.rows[-1].step
        self._journal.note("durable", newest)
        return Position(row=f"row {newest}", record=f"record {newest}")

    def close(self) -> None:
        self._journal.note("closed", len(self._journal.rows))


class FakeCheckpoints(TrainingCheckpoints):
    """Takes checkpoints, each of whose rows must be durable."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.saved: dict[int, Position] = {}

    def save(self, step: int, state: Any, position: Position) -> None:
        assert ("durable", step) in self._journal.events
        self.saved[step] = position

    def wait(self) -> None: ...


def run(
    digester: FakeDigester,
    *,
    steps: int,
    every: int = 1,
    compare: int = 1000,
    metrics: Path | None = None,
) -> FakeCheckpoints:
    """Take steps as a worker does, with a checkpoint every `compare` steps."""
    journal = digester.journal
    schedule = DigestSchedule(every=every, compare_every=compare, last_step=steps)
    attestation = Attestation(FakeRecorder(journal), digester, schedule)
    checkpoints = FakeCheckpoints(journal)

    checkpointing = Checkpointing(
        checkpoints, every=compare, last_step=steps, place=attestation.place,
        should_stop=lambda: False, announce=lambda step: None,
    )  # fmt: skip
    observers: list[Any] = [attestation, checkpointing]
    file = None
    if metrics is not None:
        file = MetricsFile(metrics, first_step=1, digest_seconds=attestation.seconds)
        observers.append(file)
    batches = (StepBatch(step, (), f"batch {step}") for step in range(1, steps + 1))
    train(FakeExecutor(journal), {"at": 0}, batches, observers, lambda step: False)
    attestation.close()
    if file is not None:
        file.close()
    return checkpoints


counts = st.integers(1, 9)
intervals = st.integers(1, 4)
lags = st.sampled_from([0, 1])


@given(steps=counts, every=intervals, compare=counts, lag=lags)
def test_digests_start_before_the_update_that_takes_the_buffers(
    steps: int, every: int, compare: int, lag: int
) -> None:
    journal = Journal()
    run(FakeDigester(journal, lag), steps=steps, every=every, compare=compare)
    for step in range(1, steps):
        taken = journal.at("update", step + 1)
        assert journal.at("gradient digest started", step) < taken
        if step % every == 0:
            assert journal.at("state digest started", step) < taken


@given(steps=st.integers(3, 9), every=intervals)
def test_no_digest_is_read_before_the_device_has_the_next_step_to_compute(
    steps: int, every: int
) -> None:
    journal = Journal()
    run(FakeDigester(journal, lag=1), steps=steps, every=every)
    for step in range(1, steps - 1):
        read = journal.at("gradient digest read", step)
        assert journal.at("gradient", step + 1) < read
        # Even the whole next step is under way: its update, and the gradient after it.
        assert journal.at("update", step + 1) < journal.at("gradient", step + 2) < read


def test_what_the_host_has_computed_is_signed_at_once() -> None:
    journal = Journal()
    run(FakeDigester(journal, lag=0), steps=4)
    for step in range(1, 4):
        assert journal.at("signed", step) < journal.at("update", step + 1)


@given(steps=counts, every=intervals, compare=counts, lag=lags)
def test_every_step_is_signed_once_in_order_and_with_its_own_numbers(
    steps: int, every: int, compare: int, lag: int
) -> None:
    journal = Journal()
    digester = FakeDigester(journal, lag)
    checkpoints = run(digester, steps=steps, every=every, compare=compare)
    assert [row.step for row in journal.rows] == list(range(1, steps + 1))
    for row in journal.rows:
        assert row.loss == row.step
        assert row.batch_root == f"batch {row.step}"
        assert (row.state_root is not None) == (row.step % every == 0 or row.step == steps)
    for step, position in checkpoints.saved.items():
        assert position == Position(row=f"row {step}", record=f"record {step}")


@given(steps=counts, every=intervals, compare=counts, lag=lags)
def test_replicas_are_compared_where_a_checkpoint_is_due_and_at_the_end(
    steps: int, every: int, compare: int, lag: int
) -> None:
    journal = Journal()
    run(FakeDigester(journal, lag), steps=steps, every=every, compare=compare)
    digested = [step for step in range(1, steps + 1) if step % every == 0 or step == steps]
    assert journal.compared == [s for s in digested if s % compare == 0 or s == steps]


@pytest.mark.parametrize("lag", [0, 1])
def test_the_metrics_of_a_step_are_its_own_and_never_ahead_of_its_signature(
    lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that ticks whenever it is looked at, and ten times more to start step 2.
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    journal = Journal()

    class SlowAtTwo(FakeDigester):
        def start(self, tree: Any, *, step: int, every_replica: bool = False) -> FakeDigest:
            if step == 2:
                next(itertools.islice(clock, 5, 5), None)
            return super().start(tree, step=step, every_replica=every_replica)

    waits: list[Any] = []

    def wait(tree: Any) -> Any:
        waits.append(tree)
        next(itertools.islice(clock, 100, 100), None)
        return tree

    monkeypatch.setattr("jax.block_until_ready", wait)
    path = tmp_path / "metrics.jsonl"
    run(SlowAtTwo(journal, lag), steps=5, metrics=path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [0.5, 1.0, 1.5, 2.0, 2.5]
    # A tick to start each of two digests and one to finish; ten more for the two of step 2. A host
    # waits for a step's values and does not count it; for a device's digests nothing waits.
    assert [row["digest_seconds"] for row in rows] == [3.0, 13.0, 3.0, 3.0, 3.0]
    assert len(waits) == (0 if lag else 10)


def test_a_step_that_is_not_signed_yet_has_no_metrics(tmp_path: Path) -> None:
    signed: dict[int, float] = {}
    file = MetricsFile(tmp_path / "metrics.jsonl", first_step=1, digest_seconds=signed.get)
    executor = FakeExecutor(Journal())
    outputs = executor.gradient({"at": 0}, ())
    step = CompletedStep(
        1, {"at": 1}, outputs, executor.scalars(outputs), StepBatch(1, (), "batch"), 0.5
    )
    file.after_step(step)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    signed[1] = 0.25
    file.close()
    assert '"digest_seconds": 0.25' in (tmp_path / "metrics.jsonl").read_text()


def test_replicas_that_differ_end_the_run_before_their_step_is_signed() -> None:
    journal = Journal()
    with pytest.raises(ReplicaError, match="parameters/w"):
        run(FakeDigester(journal, lag=1, corrupt=3), steps=6)
    assert [row.step for row in journal.rows] == [1, 2]
