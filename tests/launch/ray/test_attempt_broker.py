import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from anh_jax.training.seams import AttemptGrant, AttemptRequest
from launch.attempt_broker import AttemptBoard, BrokerError, DirectBroker, FileBroker
from launch.attempt_files import AttemptFileError, AttemptFiles

Make = Callable[..., AttemptRequest]


class Waiting:
    """A worker that asks in a thread of its own."""

    def __init__(self, broker: FileBroker, request: AttemptRequest) -> None:
        self.granted: AttemptGrant | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._ask, args=(broker, request))
        self._thread.start()

    def _ask(self, broker: FileBroker, request: AttemptRequest) -> None:
        try:
            self.granted = broker.open_attempt(request)
        except Exception as error:
            self.error = error

    def join(self) -> "Waiting":
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self


def serve_until(board: AttemptBoard, served: Callable[[], bool]) -> None:
    for _ in range(1000):
        board.serve()
        if served():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing was served")


def refuse(board: AttemptBoard) -> BrokerError:
    for _ in range(1000):
        try:
            board.serve()
        except BrokerError as error:
            return error
        threading.Event().wait(0.01)
    raise AssertionError("nothing was refused")


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    return AttemptFiles(tmp_path / "attempts")


def test_all_ranks_read_the_one_grant_and_the_driver_sees_them_in_order(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    generation = files.announce(3)
    workers = [
        Waiting(FileBroker(files, generation.name), request_of(rank, 3)) for rank in (2, 0, 1)
    ]
    serve_until(board, lambda: bool(notary.asked))
    grants = [worker.join().granted for worker in workers]
    assert grants == [AttemptGrant(number=1, record=f"{1:064x}")] * 3
    assert [[request.rank for request in asked] for asked in notary.asked] == [[0, 1, 2]]


def test_nothing_is_granted_until_the_last_rank_has_asked(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    generation = files.announce(2)
    first = Waiting(FileBroker(files, generation.name), request_of(0))
    while not files.requests(generation.name):
        threading.Event().wait(0.01)
    assert board.serve() is None
    assert not notary.asked
    second = Waiting(FileBroker(files, generation.name), request_of(1))
    serve_until(board, lambda: bool(notary.asked))
    assert first.join().granted == second.join().granted


def test_a_dead_group_s_request_never_completes_the_group_that_replaces_it(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    dead = files.announce(2)
    orphan = Waiting(FileBroker(files, dead.name), request_of(1, public_key_hex="d" * 64))
    while not files.requests(dead.name):
        threading.Event().wait(0.01)
    alive = files.announce(2)
    first = Waiting(FileBroker(files, alive.name), request_of(0))
    while not files.requests(alive.name):
        threading.Event().wait(0.01)
    assert board.serve() is None
    second = Waiting(FileBroker(files, alive.name), request_of(1))
    serve_until(board, lambda: bool(notary.asked))
    assert first.join().granted == second.join().granted
    assert [request.public_key_hex for request in notary.asked[0]] == [f"{0:064x}", f"{1:064x}"]
    assert "replaced" in str(orphan.join().error)


def test_a_complete_but_dead_group_is_not_granted(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    dead = files.announce(2)
    for rank in range(2):
        with pytest.raises(BrokerError, match="no attempt was signed"):
            FileBroker(files, dead.name, seconds=0.0).open_attempt(request_of(rank))
    files.announce(2)
    assert board.serve() is None
    assert not notary.asked


def test_what_an_earlier_driver_s_workers_asked_is_forgotten(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    AttemptBoard.open(files, notary)
    old = files.announce(1)
    with pytest.raises(BrokerError):
        FileBroker(files, old.name, seconds=0.0).open_attempt(request_of(0, 1))
    board = AttemptBoard.open(files, notary)
    assert board.serve() is None
    assert files.living() is None
    assert files.announce(1).index == 0


def test_two_workers_with_one_rank_are_told_apart(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    AttemptBoard.open(files, notary)
    generation = files.announce(2)
    first = Waiting(FileBroker(files, generation.name, seconds=0.5), request_of(1))
    while not files.claim(generation.name, 1).exists():
        threading.Event().wait(0.01)
    with pytest.raises(BrokerError, match="rank 1 of this group is taken by process"):
        FileBroker(files, generation.name).open_attempt(request_of(1))
    first.join()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step": 7}, "a different step"),
        ({"resumed_record_hex": "a" * 64}, "a different resumed_record_hex"),
        ({"mesh": {"data": 1, "fsdp": 2, "tensor": 1}}, "a different mesh"),
        ({"reason": "resume"}, "a different reason"),
        ({"processes": 3}, "counts 3 workers in a group of 2"),
        ({"public_key_hex": f"{0:064x}"}, "the same public key"),
        ({"rank": 2}, r"asked with the ranks \[0, 2\]"),
    ],
)
def test_a_group_whose_requests_do_not_fit_is_refused_to_every_rank(
    files: AttemptFiles, notary: Any, request_of: Make, changes: dict[str, object], named: str
) -> None:
    board = AttemptBoard.open(files, notary)
    generation = files.announce(2)
    workers = [
        Waiting(FileBroker(files, generation.name), request_of(0)),
        Waiting(FileBroker(files, generation.name), request_of(**({"rank": 1} | changes))),
    ]
    while len(files.requests(generation.name)) < 2:
        threading.Event().wait(0.01)
    error = refuse(board)
    assert error.exit_code == 2
    for worker in workers:
        assert str(worker.join().error) == str(error)
    with pytest.raises(BrokerError, match=named):
        raise error
    assert not notary.asked


def test_a_grant_that_cannot_be_signed_reaches_the_workers_and_the_driver(
    files: AttemptFiles, request_of: Make
) -> None:
    def grant(requests: Sequence[AttemptRequest]) -> AttemptGrant:
        raise OSError("the run key is gone")

    board = AttemptBoard.open(files, grant)
    generation = files.announce(1)
    worker = Waiting(FileBroker(files, generation.name), request_of(0, 1))
    with pytest.raises(OSError, match="the run key is gone"):
        serve_until(board, lambda: False)
    assert isinstance(worker.join().error, BrokerError)
    assert "the run key is gone" in str(worker.error)
    assert board.serve() is None


def test_a_worker_that_gets_no_answer_says_whom_it_waited_for(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    AttemptBoard.open(files, notary)
    generation = files.announce(2)
    with pytest.raises(BrokerError, match=r"rank 0: no attempt was signed within 0\.1 s"):
        FileBroker(files, generation.name, seconds=0.1).open_attempt(request_of(0))


def test_the_second_group_of_a_run_asks_because_a_worker_was_lost(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    for _ in range(2):
        generation = files.announce(1)
        worker = Waiting(
            FileBroker(files, generation.name), request_of(0, 1, reason="resume", step=4)
        )
        before = len(notary.asked)
        serve_until(board, lambda before=before: len(notary.asked) > before)
        worker.join()
    assert [asked[0].reason for asked in notary.asked] == ["resume", "worker lost"]
    assert [grant.number for grant in board.grants] == [1, 2]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"rank": -1}', b"\xff"])
def test_a_damaged_request_is_named_and_refused(
    files: AttemptFiles, notary: Any, request_of: Make, data: bytes
) -> None:
    board = AttemptBoard.open(files, notary)
    generation = files.announce(1)
    files.request(generation.name, 0).write_bytes(data)
    with pytest.raises(AttemptFileError, match="request.json"):
        board.serve()
    assert not notary.asked


def test_a_request_under_another_rank_s_name_is_refused(
    files: AttemptFiles, notary: Any, request_of: Make
) -> None:
    board = AttemptBoard.open(files, notary)
    generation = files.announce(2)
    waiting = Waiting(FileBroker(files, generation.name), request_of(1))
    while not files.requests(generation.name):
        threading.Event().wait(0.01)
    files.request(generation.name, 0).write_bytes(files.request(generation.name, 1).read_bytes())
    with pytest.raises(BrokerError, match="holds the request of rank 1"):
        board.serve()
    waiting.join()


def test_the_direct_broker_grants_one_worker_at_once(notary: Any, request_of: Make) -> None:
    assert DirectBroker(notary).open_attempt(request_of(0, 1)).number == 1
    with pytest.raises(BrokerError, match="counts 2 workers in a group of 1"):
        DirectBroker(notary).open_attempt(request_of(0, 2))
