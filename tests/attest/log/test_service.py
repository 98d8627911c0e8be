"""A log over HTTP: what it takes and what it answers, on a loopback port."""

import base64
import hashlib
import json
import threading
from types import ModuleType
from typing import Any

import pytest

from attest.consistency_file import ConsistencyFile
from attest.cosignature import open_cosigned
from attest.keys import ALG_ED25519, VerifierKey
from attest.log.layout import LogNames
from attest.log.published_log import PublishedLog
from attest.merkle import verify_consistency, verify_inclusion
from attest.note import KeyName, Note
from attest.tlog_proof import TlogProof


def test_records_are_logged_in_order_and_lie_under_the_checkpoint_that_was_waited_for(
    begun: tuple[Any, Any],
) -> None:
    served, run = begun
    reply = served.submit(*run.train(1, 4, 4), query="?wait=20")
    note = base64.b64decode(reply.json["checkpoint"])
    opened = open_cosigned(note, served.log.names.log, [served.log.names.witness])
    assert opened.cosignatures
    assert opened.checkpoint.size >= 7 == reply.json["indices"][0] + 1


def test_record_that_comes_again_has_its_index_again(begun: tuple[Any, Any]) -> None:
    served, run = begun
    again = served.submit(run.steps[1][2], run.steps[1][1])
    assert (again.status, again.json) == (200, {"indices": [4, 3]})
    assert served.log.size == 6


def test_records_before_the_first_refused_one_are_logged_and_named(
    begun: tuple[Any, Any],
) -> None:
    served, run = begun
    good, missing, late = run.step(1, 4), run.step(1, 5), run.step(1, 6)
    reply = served.submit(good, late, missing)
    assert (reply.status, reply.code, reply.json["indices"]) == (422, "step-order", [6])
    assert served.submit(missing, late).json["indices"] == [7, 8]


def test_submitters_do_not_suffer_from_each_other(serve: Any, lab: ModuleType) -> None:
    served = serve()
    runs = [lab.Lab(name=f"lab{i}") for i in range(6)]
    replies: dict[int, list[Any]] = {i: [] for i in range(6)}

    def submit(i: int) -> None:
        run = runs[i]
        replies[i].append(served.submit(*run.opening(), keys=(run.author,)))
        for step in range(1, 8):
            record = run.step(1, step)
            replies[i].append(served.submit(b"{}" if i % 2 else record))

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(0, 6, 2):
        assert [reply.status for reply in replies[i]] == [200] * 8
    for i in range(1, 6, 2):
        assert [reply.status for reply in replies[i]] == [200] + [400] * 7
    # The contract is the same in all of them, and is logged once.
    assert served.log.size == 1 + 6 * 2 + 3 * 7


def test_readers_check_all_they_read_against_the_checkpoint(begun: tuple[Any, Any]) -> None:
    served, run = begun
    reader = PublishedLog(served.file, served.log.names)
    assert [e.record_hash() for e in reader.entries(0, 6)] == [
        e.record_hash() for e in served.log.entries(0, 6)
    ]
    assert reader.inclusion(3, 6) == served.log.inclusion(3, 6)
    assert reader.entry(3) == run.steps[1][1]


def test_reader_refuses_a_bundle_that_does_not_lead_to_the_root(
    begun: tuple[Any, Any],
) -> None:
    served, _ = begun

    def altered(path: str) -> bytes:
        data = served.file(path)
        return data.replace(b"payload", b"PAYLOAD") if "entries" in path else data

    reader = PublishedLog(altered, served.log.names)
    with pytest.raises(Exception, match="consistency"):
        list(reader.entries(0, 6))


def test_proofs_hold_for_whoever_checks_them(begun: tuple[Any, Any]) -> None:
    served, run = begun
    record = run.steps[1][2]
    data = served.get(f"/record/{record.record_hash().hex()}")
    assert (data.data, data.headers["anh-index"]) == (record.to_bytes(), "4")
    proof = TlogProof.from_bytes(served.get(f"/record/{record.record_hash().hex()}/proof").data)
    head = proof.verify(record.to_bytes())
    assert TlogProof.from_bytes(proof.to_bytes()) == proof
    with pytest.raises(Exception, match="inclusion"):
        proof.verify(record.to_bytes() + b" ")
    path = served.get(f"/proof/inclusion?index=4&size={head.size}").json["path"]
    assert tuple(map(bytes.fromhex, path)) == proof.path
    leaf = hashlib.sha256(b"\x00" + record.to_bytes()).digest()
    verify_inclusion(4, head.size, leaf, proof.path, head.root)
    told = ConsistencyFile.from_bytes(served.get("/proof/consistency?old=3&new=6").data)
    old = hashlib_root([e.to_bytes() for e in served.log.entries(0, 3)])
    verify_consistency(3, 6, told.consistency(3, 6), old, head.root)


def hashlib_root(leaves: list[bytes]) -> bytes:
    a, b, c = (hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves)
    ab = hashlib.sha256(b"\x01" + a + b).digest()
    return hashlib.sha256(b"\x01" + ab + c).digest()


def test_tiles_are_for_ever_and_checkpoints_are_not(begun: tuple[Any, Any]) -> None:
    served, _ = begun
    tile = served.get("/tile/0/000.p/6")
    assert "immutable" in tile.headers["cache-control"]
    assert tile.headers["content-type"] == "application/octet-stream"
    assert len(tile.data) == 6 * 32
    checkpoint = served.get("/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert "no-cache" in checkpoint.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/000.p/256",
        "/tile/64/000",
        "/tile/0/00",
        "/tile/0/x1/000",
        "/tile/entries/../../log.json",
        "/tile/entries/%2e%2e/%2e%2e/log.json",
        "/tile/../keys/log",
        "/tile/0/../../../keys/log",
        "//etc/passwd",
        "/tile/0/000.p/0",
    ],
)
def test_path_that_is_no_tile_is_never_looked_up(quiet: Any, path: str) -> None:
    reply = quiet.get(path)
    assert (reply.status, reply.code) == (404, "path")


def test_runs_are_listed_open_and_ended(begun: tuple[Any, Any], lab: ModuleType) -> None:
    served, run = begun
    other = lab.Lab(name="other")
    assert served.submit(other.genesis, other.attempt(1), query="?wait=20").status == 200
    listed = served.get("/runs").json["runs"]
    assert [(r["run"], r["rows"], r["state"]) for r in listed] == [
        (run.run, 3, "open"),
        (other.run, 0, "open"),
    ]
    assert served.submit(run.final(3), query="?wait=20").status == 200
    ended = served.get(f"/runs?state=ended&contract={run.contract.id}").json["runs"]
    assert [(r["run"], r["final"], r["attempts"]) for r in ended] == [(run.run, 8, 1)]
    assert [r["run"] for r in served.get("/runs?after=1&limit=1").json["runs"]] == [other.run]
    assert served.get("/runs?state=closed").code == "question"


def test_records_of_one_run_come_without_those_of_others(
    begun: tuple[Any, Any], lab: ModuleType
) -> None:
    served, run = begun
    other = lab.Lab(name="other")
    served.submit(other.genesis, other.attempt(1), other.step(1, 1))
    served.submit(run.intent("auditor"), keys=(lab.key("auditor").public,))
    assert served.submit(*run.train(1, 4, 5), query="?wait=20").status == 200

    def indices(query: str = "") -> list[int]:
        lines = served.get(f"/run/{run.run}/records{query}").data.splitlines()
        return [json.loads(line)["index"] for line in lines]

    assert indices() == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    assert indices("?rows=no") == [0, 1, 2, 9]
    assert indices("?from=5") == [5, 9, 10, 11]
    assert served.get(f"/run/{'0' * 64}/records").code == "absent"


def test_metrics_and_health_say_what_happened(begun: tuple[Any, Any]) -> None:
    served, run = begun
    served.submit(run.step(1, 9))
    text = served.get("/metrics").data.decode()
    assert 'anh_log_records_total{outcome="taken"} 6' in text
    assert 'anh_log_records_total{outcome="step-order"} 1' in text
    assert "anh_log_size 6" in text
    assert "anh_log_open_runs 1" in text
    assert served.get("/healthz").json["healthy"] is True


def test_another_logs_checkpoint_is_not_believed(begun: tuple[Any, Any], lab: ModuleType) -> None:
    served, _ = begun
    other = VerifierKey(served.log.origin, ALG_ED25519, lab.key("another").public)
    reader = PublishedLog(served.file, LogNames(other, served.log.names.witness))
    with pytest.raises(Exception, match="not signed"):
        reader.look()


@pytest.mark.parametrize(
    "path",
    [
        "/proof/inclusion",
        "/proof/inclusion?index=-1",
        "/proof/inclusion?index=01",
        "/proof/inclusion?index=9&size=3",
        "/proof/inclusion?index=1e3",
        "/proof/consistency?old=5&new=3",
        "/proof/consistency?old=99999999999999999999",
        "/record/abc",
        "/runs?limit=x",
        "/checkpoint/x",
        "/submit?wait=x",
    ],
)
def test_malformed_question_is_told(quiet: Any, path: str) -> None:
    method = "POST" if path.startswith("/submit") else "GET"
    reply = quiet.ask(method, path, b"{}\n" if method == "POST" else b"")
    assert (reply.status, reply.code) == (400, "question")


def test_server_that_stops_has_logged_and_published_what_it_acknowledged(
    serve: Any, lab: ModuleType
) -> None:
    served, run = serve(checkpoint_seconds=30), lab.Lab()
    acknowledged = served.submit(*run.opening(), *run.train(1, 1, 4), keys=(run.author,))
    served.stop()
    assert acknowledged.json["indices"] == list(range(7))
    reader = PublishedLog(served.log.tiles.read, served.log.names)
    assert reader.size == 7


def test_checkpoint_that_does_not_come_in_time_is_said_so(serve: Any, lab: ModuleType) -> None:
    served, run = serve(checkpoint_seconds=30), lab.Lab()
    reply = served.submit(*run.opening(), keys=(run.author,), query="?wait=1")
    assert (reply.status, reply.json) == (202, {"indices": [0, 1, 2]})
    assert served.get("/proof/inclusion?index=0&size=3").code == "not-yet"


def test_checkpoint_without_its_witness_is_not_believed(quiet: Any) -> None:
    note = Note.from_bytes(quiet.file("checkpoint"))
    alone = note.signed_only([KeyName.of(quiet.log.names.log)]).to_bytes()
    reader = PublishedLog(lambda path: alone, quiet.log.names)
    with pytest.raises(Exception, match="not cosigned"):
        reader.look()
