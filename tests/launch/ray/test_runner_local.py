import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launch.errors import CommandError
from launch.interrupts import Interrupts
from launch.phases import Phase
from launch.run_outcome import load_entry
from launch.runner_local import run_locally


@pytest.fixture
def entry(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A module that exists while the test runs; its `train` is set by the test."""
    module = ModuleType("local_stand_in")
    sys.modules["local_stand_in"] = module
    yield module
    del sys.modules["local_stand_in"]


def test_one_worker_runs_in_this_process(
    run_directory: Path, entry: Any, notary: Any, request_of: Any
) -> None:
    seen: dict[str, Any] = {}

    def train(root: Path, *, rank: int, processes: int, broker: Any, reporter: Any) -> None:
        seen.update(pid=os.getpid(), rank=rank, processes=processes, root=root)
        seen["grant"] = broker.open_attempt(request_of(0, 1))
        reporter.phase("program loaded", 0.5)
        reporter.checkpoint(1, root)
        seen["stop"] = reporter.should_stop()

    entry.train = train
    phases: list[Phase] = []
    outcome = run_locally(
        run_directory, grant=notary, on_phase=phases.append, entry="local_stand_in:train"
    )
    assert seen["pid"] == os.getpid()
    assert (seen["rank"], seen["processes"], seen["root"]) == (0, 1, run_directory)
    assert seen["stop"] is False
    assert phases == [Phase("program loaded", 0.5, "0")]
    assert (outcome.ending, outcome.attempts) == ("finished", (seen["grant"],))


def test_ctrl_c_once_asks_and_twice_ends(run_directory: Path, entry: Any, notary: Any) -> None:
    steps: list[int] = []

    def train(root: Path, *, rank: int, processes: int, broker: Any, reporter: Any) -> None:
        for step in range(100):
            steps.append(step)
            if step == 3:
                signal.raise_signal(signal.SIGINT)
            if reporter.should_stop():
                return

    entry.train = train
    outcome = run_locally(
        run_directory, grant=notary, on_phase=lambda phase: None, entry="local_stand_in:train"
    )
    assert (outcome.ending, steps[-1]) == ("interrupted", 3)

    def stubborn(root: Path, **rest: Any) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    entry.train = stubborn
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_locally(
            run_directory, grant=notary, on_phase=lambda phase: None, entry="local_stand_in:train"
        )
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_file_of_an_earlier_run_stops_nothing(
    run_directory: Path, entry: Any, notary: Any
) -> None:
    answers: list[bool] = []

    def train(root: Path, *, rank: int, processes: int, broker: Any, reporter: Any) -> None:
        answers.append(reporter.should_stop())
        (root / "stop").touch()
        answers.append(reporter.should_stop())

    (run_directory / "stop").touch()
    entry.train = train
    run_locally(
        run_directory, grant=notary, on_phase=lambda phase: None, entry="local_stand_in:train"
    )
    assert answers == [False, True]


def test_interrupts_outside_the_main_thread_leave_the_signal_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[Any] = []

    def enter() -> None:
        with Interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("text", ["train", "no_such_module:train", "launch.errors:no_such", ":x"])
def test_an_entry_that_names_nothing_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(CommandError, match="worker entry") as caught:
        load_entry(text)
    assert "\n" not in str(caught.value)
