import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.attempt_files import AttemptFiles
from launch.stop_agreement import StopAgreement, StopError


class Rank:
    """A training thread that asks once a step and paces itself."""

    def __init__(self, agreement: StopAgreement, pauses: list[float], steps: int) -> None:
        self.stopped_at: int | None = None
        self._agreement = agreement
        self._pauses = pauses
        self._steps = steps
        self.thread = threading.Thread(target=self._train)
        self.thread.start()

    def _train(self) -> None:
        for step in range(1, self._steps + 1):
            time.sleep(self._pauses[step % len(self._pauses)])
            if self._agreement.should_stop():
                self.stopped_at = step
                break
        self._agreement.close()


def agreements(folder: Path, processes: int, seconds: float = 20.0) -> list[StopAgreement]:
    files = AttemptFiles(folder / "attempts")
    files.folder.mkdir()
    return [
        StopAgreement(
            files,
            "g",
            rank=rank,
            processes=processes,
            request=folder / "stop",
            seconds=seconds,
        )
        for rank in range(processes)
    ]


@settings(max_examples=8, deadline=None)
@given(
    pauses=st.lists(
        st.lists(st.floats(0.0005, 0.02), min_size=1, max_size=4), min_size=2, max_size=4
    ),
    asked_after=st.floats(0.0, 0.2),
)
def test_ranks_that_run_apart_stop_at_the_same_step(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[list[float]], asked_after: float
) -> None:
    folder = tmp_path_factory.mktemp("stop")
    ranks = [
        Rank(agreement, pause, steps=5000)
        for agreement, pause in zip(agreements(folder, len(pauses)), pauses, strict=True)
    ]
    time.sleep(asked_after)
    (folder / "stop").touch()
    for rank in ranks:
        rank.thread.join(30)
    steps = {rank.stopped_at for rank in ranks}
    assert len(steps) == 1
    assert None not in steps
    assert AttemptFiles(folder / "attempts").stopped("g").exists()


def test_nobody_stops_unasked(tmp_path: Path) -> None:
    ranks = [Rank(agreement, [0.001], steps=300) for agreement in agreements(tmp_path, 2)]
    for rank in ranks:
        rank.thread.join(30)
        assert rank.stopped_at is None
    assert not AttemptFiles(tmp_path / "attempts").stopped("g").exists()


def test_a_rank_that_is_through_holds_nobody(tmp_path: Path) -> None:
    short, long = agreements(tmp_path, 2)
    through = Rank(short, [0.0], steps=3)
    through.thread.join(30)
    going = Rank(long, [0.01], steps=5000)
    (tmp_path / "stop").touch()
    going.thread.join(30)
    assert through.stopped_at is None
    assert going.stopped_at is not None


def test_a_single_rank_stops_by_itself(tmp_path: Path) -> None:
    rank = Rank(agreements(tmp_path, 1)[0], [0.01], steps=5000)
    (tmp_path / "stop").touch()
    rank.thread.join(30)
    assert rank.stopped_at is not None


def test_a_silent_rank_is_named(tmp_path: Path) -> None:
    files = AttemptFiles(tmp_path / "attempts")
    files.folder.mkdir()
    alone = StopAgreement(files, "g", rank=0, processes=2, request=tmp_path / "stop", seconds=0.2)
    (tmp_path / "stop").touch()
    with pytest.raises(StopError, match=r"ranks \[1\] did not say where they are"):
        for _ in range(1000):
            alone.should_stop()
            time.sleep(0.01)
    alone.close()
