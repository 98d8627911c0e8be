"""A log that somebody else serves, used as one's own: read with proofs, and never believed."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attest.assembly import assemble
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.equivocation import check_evidence
from attest.errors import EquivocationError, FormatError, InputError, RefusedError
from attest.log.http_reader import HttpReader, Patience, Reply
from attest.log.published_log import PublishedLog
from attest.log.remote import RemoteLog
from attest.log.sequencer import LocalLog
from attest.log.shipper import Progress, Shipper
from attest.monitor import status
from attest.multiproof import fold
from attest.note import KeyName, Note
from attest.proof import parse_proof
from attest.rejections import RejectedError
from attest.witness import Witness

QUICK = Patience(tries=2, first_pause=0.01, answer=10)


def remote(served: Any, folder: Path) -> RemoteLog:
    return RemoteLog(served.server.url, folder, patience=QUICK)


def test_what_is_appended_can_be_read_with_proofs(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path
) -> None:
    served, run = begun
    log = remote(served, tmp_path / "remote")
    records = [run.step(1, 4), run.step(1, 5)]
    assert log.append(records) == [6, 7]
    assert log.append([run.intent("auditor")], keys=[lab.key("auditor").public]) == [8]
    note = log.checkpoint()
    assert Checkpoint.from_text(note.decode().partition("\n\n")[0] + "\n").size == log.size == 9
    assert list(log.entries(6, 8)) == records
    assert log.entry(7) == records[1]
    assert (log.index_of(records[0].record_hash()), log.index_of(bytes(32))) == (6, None)
    assert [index for index, _ in log.about(run.run)] == list(range(9))
    assert [index for index, _ in log.notes(run.run)] == [0, 1, 2, 8]
    assert log.origin == served.log.origin


def test_refusal_has_the_code_of_the_log_and_says_what_was_taken(
    begun: tuple[Any, Any], tmp_path: Path
) -> None:
    served, run = begun
    log = remote(served, tmp_path / "remote")
    with pytest.raises(RejectedError) as caught:
        log.append([run.step(1, 4), run.step(1, 9)])
    assert caught.value.check == "step-order"
    assert served.log.size == 7


def test_records_larger_than_one_request_are_handed_in_by_several(
    begun: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attest.log.remote._ROOM", 4000)
    served, run = begun
    log = remote(served, tmp_path / "remote")
    records = [run.step(1, step) for step in range(4, 24)]
    assert log.append(records, keys=[run.author]) == list(range(6, 26))


def test_shipper_ships_to_a_served_log_and_nothing_twice(
    serve: Callable[..., Any],
    hosts: ModuleType,
    lab: ModuleType,
    run_directory: Path,
    tmp_path: Path,
) -> None:
    served = serve()
    run = hosts.Run(run_directory, lab, lab.Lab(workers=2))
    run.begin(1)
    run.train(1, 1, 300)
    log = remote(served, tmp_path / "remote")
    assert Shipper(run.directory, log).drain() == Progress(300, 300, 300)
    posted = served.get("/metrics").data
    assert Shipper(run.directory, remote(served, tmp_path / "remote")).drain().logged == 300
    assert b'{outcome="taken"} 303' in posted
    assert b'{outcome="taken"} 303' in served.get("/metrics").data
    assert served.log.size == 303


def test_shipper_waits_for_a_log_that_is_away_and_goes_on(
    log: LocalLog,
    served: ModuleType,
    hosts: ModuleType,
    lab: ModuleType,
    run_directory: Path,
    tmp_path: Path,
) -> None:
    with served.serving(log, run_directory / "log") as first:
        host, port = first.address
    run = hosts.Run(run_directory, lab, lab.Lab())
    run.begin(1)
    run.train(1, 1, 20)
    away = RemoteLog(f"http://{host}:{port}", tmp_path / "remote", patience=QUICK)
    with Shipper(run.directory, away, poll_seconds=0.01) as shipper:
        wait_for(lambda: shipper.trouble is not None)
        shipper.check()  # nothing that the run must stop for
        with served.serving(log, run_directory / "log", port=port):
            wait_for(lambda: shipper.progress.checkpointed == 20)
            assert shipper.trouble is None
    assert log.size == 23


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_log_that_is_away_is_an_input_error_and_names_itself(tmp_path: Path) -> None:
    log = RemoteLog("http://127.0.0.1:9/x", tmp_path, patience=QUICK)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/x: gives no answer"):
        log.checkpoint()
    assert json.loads((tmp_path / "remote.json").read_bytes()) == {"url": "http://127.0.0.1:9/x"}


@pytest.mark.parametrize(
    "url", ["ftp://log.example", "file:///etc/passwd", "log.example", "http://", "http://a/?b=c"]
)
def test_address_that_is_no_service_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no address"):
        RemoteLog(url, tmp_path)


def test_keys_are_taken_from_a_log_once_and_never_again(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path
) -> None:
    served, _ = begun
    log = remote(served, tmp_path / "remote")
    assert log.names == served.log.names
    pinned = tmp_path / "remote" / "remote.json"
    assert json.loads(pinned.read_bytes())["log"] == served.log.names.log.to_text()
    pinned.write_bytes(pinned.read_bytes().replace(b"example/runs+", b"example/runz+"))
    with pytest.raises(FormatError):
        remote(served, tmp_path / "remote").checkpoint()


def test_log_that_rewrites_its_past_is_shown_to_have_done_so(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path, served: ModuleType
) -> None:
    """The evidence names two heads that no honest log signs both, and stands by itself."""
    one, run = begun
    log = remote(one, tmp_path / "remote")
    before = log.published()
    # Somebody with the log's key writes another history, and serves it in the same place.
    fork = tmp_path / "fork"
    with LocalLog.create(fork, lab.key("log"), lab.key("witness"), one.log.origin) as other:
        stranger = lab.Lab(name="stranger")
        other.append(stranger.opening(), keys=[stranger.author])
        other.append(stranger.train(1, 1, 6))
        other.checkpoint()
        with served.serving(other, fork) as liar:
            log = RemoteLog(liar.server.url, tmp_path / "remote", patience=QUICK)
            with pytest.raises(EquivocationError, match="two histories") as caught:
                log.checkpoint()
    assert isinstance(caught.value.evidence, bytes)
    first, second = check_evidence(caught.value.evidence, one.log.names.log)
    assert (first.size, second.size) == (6, 9)
    assert before.decode().startswith(first.to_text())


def test_two_roots_of_one_size_are_shown_too(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path
) -> None:
    served, _ = begun
    log = remote(served, tmp_path / "remote")
    honest = log.published()
    other = sign_checkpoint(Checkpoint(served.log.origin, 6, bytes(32)), lab.key("log")).to_bytes()
    witness = Witness.create(tmp_path / "w", lab.key("witness"), f"{served.log.origin}/witness")
    witness.register(served.log.names.log)
    forged = other + witness.cosign(0, [], other).to_line().encode()
    served.log.tiles.publish(forged)
    with pytest.raises(EquivocationError, match="two histories") as caught:
        log.published()
    assert check_evidence(caught.value.evidence, served.log.names.log)[0].size == 6
    served.log.tiles.publish(honest)


def test_proof_assembled_by_the_service_is_the_one_assembled_here(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path
) -> None:
    served, run = begun
    log = remote(served, tmp_path / "remote")
    log.append([run.final(3)])
    note = log.checkpoint()
    told = parse_proof(served.get(f"/run/{run.run}/proof").data)
    here = assemble(log, run.run, note, among=log.notes(run.run))
    assert told == here
    leaves = {record.index: record.leaf for record in told.records}
    head = Checkpoint.from_text(note.decode().partition("\n\n")[0] + "\n")
    assert fold(head.size, leaves, told.sizes, told.nodes).root == head.root


def test_proof_shows_the_checkpoint_that_its_status_spoke_of(
    begun: tuple[Any, Any], lab: ModuleType, tmp_path: Path
) -> None:
    """Other runs' records come between a status and a proof: the log is not this run's alone."""
    served, run = begun
    log = remote(served, tmp_path / "remote")
    log.append([run.final(3)])
    log.checkpoint()
    said = status(log, run.contract.id, lab.key("monitor"), "eye")
    log.append([said], keys=[lab.key("monitor").public])
    log.checkpoint()
    other = lab.Lab(name="other")
    log.append([other.genesis, other.attempt(1), *other.train(1, 1, 3)])
    note = log.checkpoint()
    proof = parse_proof(served.get(f"/run/{run.run}/proof").data)
    kept = proof.status_checkpoint
    assert kept is not None
    assert Checkpoint.from_text(kept.decode().partition("\n\n")[0] + "\n").size == 7
    assert note == proof.checkpoint
    assert log.checkpoint_of(7) == kept
    assert log.checkpoint_of(5) is None


@pytest.mark.parametrize(
    ("status_code", "body"),
    [(200, b"[]"), (200, b'{"indices":[]}'), (200, b'{"indices":["x"]}'), (200, b"\xff" * 9)],
)
def test_answer_that_is_none_of_ours_is_an_input_error(
    status_code: int, body: bytes, tmp_path: Path, lab: ModuleType
) -> None:
    with Answering(status_code, body) as url:
        log = RemoteLog(url, tmp_path, patience=QUICK)
        with pytest.raises(InputError, match="none of ours"):
            log.append([lab.Lab().genesis])


def test_service_that_cannot_answer_now_is_asked_again(tmp_path: Path) -> None:
    busy = b'{"code":"busy","indices":[],"message":"later","rule":""}'
    pauses: list[float] = []
    with Answering(503, busy) as url, pytest.raises(InputError, match="later"):
        HttpReader(url, Patience(tries=4, first_pause=1), pauses.append).get("/x")
    assert len(pauses) == 3
    assert 0.5 <= pauses[0] <= 1.5 and 2 <= pauses[2] <= 6


def test_refusal_for_good_is_asked_once(tmp_path: Path) -> None:
    no = b'{"code":"absent","indices":[],"message":"no","rule":""}'
    with Answering(404, no) as url, pytest.raises(RefusedError) as caught:
        HttpReader(url, Patience(tries=4, first_pause=9)).get("/x")
    assert caught.value.check == "absent"


def test_redirection_is_not_followed() -> None:
    with (
        Answering(200, b"elsewhere") as elsewhere,
        Answering(302, b"", {"Location": elsewhere}) as url,
        pytest.raises(InputError, match="status 302"),
    ):
        HttpReader(url, QUICK).get("/x")


def test_answer_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attest.log.http_reader.MAX_ANSWER_BYTES", 1 << 16)
    with Answering(200, b"x" * (1 << 18)) as url, pytest.raises(InputError, match="more than"):
        HttpReader(url, QUICK).get("/x")


@pytest.mark.parametrize("status_code", [200, 404])
def test_answer_that_breaks_off_is_none(status_code: int) -> None:
    answering = Answering(status_code, b'{"indices"', {"Content-Length": "40"})
    with answering as url, pytest.raises(InputError, match="IncompleteRead"):
        HttpReader(url, QUICK).get("/x")


def test_head_that_a_witness_has_not_cosigned_says_nothing(quiet: Any) -> None:
    names, note = quiet.log.names, Note.from_bytes(quiet.file("checkpoint"))
    reader = PublishedLog(quiet.file, names)
    assert reader.hold_against(note.to_bytes(), names.witness).size == 6
    alone = note.signed_only([KeyName.of(names.log)]).to_bytes()
    with pytest.raises(RefusedError, match="has not cosigned"):
        reader.hold_against(alone, names.witness)


def test_record_that_is_not_where_the_service_says_is_not_taken(
    begun: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, run = begun
    log = remote(served, tmp_path / "remote")
    assert len(list(log.about(run.run))) == 6
    get = HttpReader.get

    def misplaced(reader: HttpReader, path: str) -> Reply:
        reply = get(reader, path)
        data = reply.data.replace(b'"index":3', b'"index":4')
        return Reply(reply.status, data, reply.headers)

    monkeypatch.setattr(HttpReader, "get", misplaced)
    with pytest.raises(InputError, match="entry 4 is another than it says"):
        list(log.about(run.run))


class Answering:
    """A server that gives everybody one answer."""

    def __init__(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    return  # whoever asked has had enough

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
