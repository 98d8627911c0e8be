"""A witness over HTTP: each answer of C2SP tlog-witness, and a log that asks such witnesses."""

import base64
import hashlib
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attest import witness_service
from attest.checkpoint import Checkpoint, sign_checkpoint
from attest.cosignature import cosign, open_cosigned
from attest.errors import FormatError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, VerifierKey
from attest.log.http_reader import Reply
from attest.log.http_witness import HttpWitness, Witnesses
from attest.log.sequencer import LocalLog
from attest.merkle import consistency_path, leaf_hash, tree_root
from attest.note import Note
from attest.witness import Witness
from attest.witness_wire import AddCheckpoint, decode_lines, decode_size
from launch.http_server import HttpServer, Place

ORIGIN = "log.example/runs"
LEAVES = [leaf_hash(bytes([i])) for i in range(40)]
OTHERS = [leaf_hash(b"another" + bytes([i])) for i in range(40)]


def key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


LOG = VerifierKey(ORIGIN, ALG_ED25519, key("log").public)


def head(size: int, leaves: list[bytes] = LEAVES, signer: str = "log", origin: str = ORIGIN):
    return sign_checkpoint(Checkpoint(origin, size, tree_root(leaves[:size])), key(signer))


def no_path(old: int) -> list[bytes]:
    return []


class Served:
    """A served witness, asked as any log asks it."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.server = HttpServer(witness_service.application(witness), Place())
        began = threading.Event()
        self.thread = threading.Thread(target=self.server.run, args=(began.set,))
        self.thread.start()
        assert began.wait(20)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, str]:
        host, port = self.server.url.removeprefix("http://").split(":")
        line = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            line.request(method, path, body or None)
            reply = line.getresponse()
            return reply.status, reply.read(), reply.getheader("content-type", "")
        finally:
            line.close()

    def add(self, old: int, size: int, **changes: Any) -> tuple[int, bytes, str]:
        proof = changes.pop("proof", None)
        if proof is None:
            proof = consistency_path(old, size, LEAVES) if 0 < old <= size else []
        note = head(size, **changes).to_bytes()
        return self.ask(
            "POST", "/add-checkpoint", AddCheckpoint(old, tuple(proof), note).to_bytes()
        )

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(30)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    witness = Witness.create(tmp_path / "w", key("witness"), "w.example/a")
    witness.register(LOG)
    one = Served(witness)
    yield one
    one.stop()


def test_head_that_extends_the_last_is_cosigned(served: Served) -> None:
    for old, size in ((0, 5), (5, 20), (20, 20), (20, 33)):
        status, data, _ = served.add(old, size)
        assert status == 200
        (line,) = decode_lines(data)
        cosigned = head(size).signed_also(line).to_bytes()
        assert open_cosigned(cosigned, LOG, [served.witness.vkey]).cosignatures


def test_witness_at_another_size_says_at_which(served: Served) -> None:
    assert served.add(0, 7)[0] == 200
    status, data, kind = served.add(0, 9)
    assert (status, data, kind) == (409, b"7\n", "text/x.tlog.size")
    assert decode_size(data) == 7


def test_each_refusal_has_the_status_of_the_specification(served: Served) -> None:
    assert served.add(0, 8)[0] == 200
    cases = {
        "an old size above the head's": (served.add(8, 5), 400),
        "a log that nobody registered": (served.add(0, 8, origin="log.example/other"), 404),
        "another key's signature": (served.add(8, 9, signer="stranger"), 403),
        "another tree of the same size": (served.add(8, 8, leaves=OTHERS), 422),
        "a tree that does not extend": (served.add(8, 12, leaves=OTHERS), 422),
        "a proof of something else": (served.add(8, 12, proof=[bytes(32)] * 3), 422),
        "a proof where there is nothing to prove": (served.add(8, 12, proof=[]), 422),
    }
    assert {name: reply[0] for name, (reply, _) in cases.items()} == {
        name: status for name, (_, status) in cases.items()
    }
    assert served.witness.size(ORIGIN) == 8


HOSTILE = {
    "nothing": b"",
    "no proof separator": b"old 0\n",
    "a size with a zero before it": b"old 00\n\n" + head(1).to_bytes(),
    "a negative size": b"old -1\n\n" + head(1).to_bytes(),
    "no base64": b"old 0\n???\n\n" + head(1).to_bytes(),
    "base64 in another spelling": b"old 0\n" + b"A" * 42 + b"B=\n\n" + head(1).to_bytes(),
    "a short hash": b"old 0\nAAAA\n\n" + head(1).to_bytes(),
    "64 proof lines": b"old 1\n"
    + (base64.b64encode(bytes(32)) + b"\n") * 64
    + b"\n"
    + head(2).to_bytes(),
    "no checkpoint": b"old 0\n\nhello\n",
    "an extension line": b"old 0\n\n" + head(1).to_bytes().replace(b"\n\n", b"\nextension\n\n", 1),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_malformed_request_is_refused(served: Served, kind: str) -> None:
    status, _, _ = served.ask("POST", "/add-checkpoint", HOSTILE[kind])
    assert status == 400
    assert served.witness.size(ORIGIN) == 0


def test_request_that_is_too_large_is_refused(served: Served) -> None:
    assert served.ask("POST", "/add-checkpoint", b"x" * (300 << 10))[0] == 413


def test_racing_requests_leave_one_history(served: Served) -> None:
    """C2SP tlog-witness: requests for N and N + K at once must not make it forget N + K."""
    assert served.add(0, 4)[0] == 200
    sizes = [10, 12, 14, 16, 18, 20]
    replies: list[int] = []

    def add(size: int) -> None:
        replies.append(served.add(4, size)[0])

    threads = [threading.Thread(target=add, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200] + [409] * 5
    assert served.witness.size(ORIGIN) in sizes


def test_monitors_read_the_newest_head_under_the_hash_of_the_origin(served: Served) -> None:
    name = hashlib.sha256(ORIGIN.encode()).hexdigest()
    assert served.ask("GET", f"/{name}/checkpoint")[0] == 404
    assert served.add(0, 6)[0] == 200
    status, data, kind = served.ask("GET", f"/{name}/checkpoint")
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    opened = open_cosigned(data, LOG, [served.witness.vkey])
    assert (opened.checkpoint.size, len(opened.cosignatures)) == (6, 1)
    assert served.ask("GET", "/../memory/checkpoint")[0] == 404


def test_witness_without_its_memory_signs_nothing(served: Served, tmp_path: Path) -> None:
    assert served.add(0, 6)[0] == 200
    (memory,) = (tmp_path / "w").glob("*.memory")
    memory.unlink()
    assert served.add(0, 3)[0] == 503


@pytest.fixture
def log(tmp_path: Path, served: Served) -> Iterator[LocalLog]:
    """A log that asks the served witness, and one that is not there."""
    keys = {name: key(name) for name in ("log", "witness")}
    (tmp_path / "keys").mkdir()
    keys["log"].save(tmp_path / "keys" / "log")
    PrivateKey(hashlib.sha256(b"own").digest()).save(tmp_path / "keys" / "witness")
    own = PrivateKey.load(tmp_path / "keys" / "witness")
    LocalLog.create(tmp_path / "log", keys["log"], own, ORIGIN).close()
    away = VerifierKey("w.example/away", ALG_COSIGNATURE, key("away").public)
    there = HttpWitness(served.witness.vkey, served.server.url)
    Witnesses((there, HttpWitness(away, "http://127.0.0.1:9"))).write(tmp_path / "log")
    with LocalLog.open(tmp_path / "log") as opened:
        yield opened


def test_log_publishes_the_lines_of_witnesses_that_answer(log: LocalLog, served: Served) -> None:
    opened = open_cosigned(log.checkpoint(), log.names.log, [served.witness.vkey])
    assert [c.witness for c in opened.cosignatures] == [served.witness.vkey]
    there, away = log.witnesses.witnesses
    assert (there.trouble, bool(away.trouble), away.due) == ("", True, False)
    assert log.lacks_lines is False  # one that does not answer is left alone for a while
    assert open_cosigned(log.published(), log.names.log, [log.names.witness]).cosignatures


def test_log_learns_from_a_witness_at_which_size_that_is(served: Served) -> None:
    assert served.add(0, 9)[0] == 200
    asked: list[int] = []

    def path(old: int) -> list[bytes]:
        asked.append(old)
        return consistency_path(old, 30, LEAVES)

    witness = HttpWitness(served.witness.vkey, served.server.url)
    note = head(30)
    checkpoint = Checkpoint.from_text(note.text)
    assert witness.ask(note.to_bytes(), checkpoint, LOG, path) is not None
    assert asked == [9]


def test_log_that_went_back_is_told_so_by_its_witness(served: Served) -> None:
    assert served.add(0, 30)[0] == 200
    witness = HttpWitness(served.witness.vkey, served.server.url)
    note = head(9)
    assert witness.ask(note.to_bytes(), Checkpoint.from_text(note.text), LOG, no_path) is None
    assert "old copy" in witness.trouble


@pytest.mark.parametrize("spoil", [b"", b"a line for another head"])
def test_line_that_does_not_verify_is_not_published(
    served: Served, spoil: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one by another key, nor one by the right key for something else."""
    note, vkey = head(5), served.witness.vkey
    if spoil:
        line = cosign(head(6).text, vkey.name, key("witness"), 1_700_000_000).to_line().encode()
        reply = Reply(200, line, {})
        monkeypatch.setattr("attest.log.http_witness.exchange", lambda *unused: reply)
    else:
        vkey = VerifierKey(vkey.name, ALG_COSIGNATURE, key("liar").public)
    witness = HttpWitness(vkey, served.server.url)
    assert witness.ask(note.to_bytes(), Checkpoint.from_text(note.text), LOG, no_path) is None
    assert ("does not verify" if spoil else "no line of its own") in witness.trouble


def test_witness_is_asked_again_once_its_pause_is_over(served: Served) -> None:
    now = [0.0]
    witness = HttpWitness(served.witness.vkey, "http://127.0.0.1:9", clock=lambda: now[0])
    note = head(5)
    for pause in (5, 10, 20):
        assert witness.ask(note.to_bytes(), Checkpoint.from_text(note.text), LOG, no_path) is None
        now[0] += pause - 1
        assert not witness.due
        now[0] += 1
        assert witness.due
    witness.url = served.server.url
    assert witness.ask(note.to_bytes(), Checkpoint.from_text(note.text), LOG, no_path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://w.example",
        LOG.to_text() + " https://w.example",
        VerifierKey("w", ALG_COSIGNATURE, key("w").public).to_text() + " file:///etc/passwd",
        VerifierKey("w", ALG_COSIGNATURE, key("w").public).to_text() + "  https://w.example",
    ],
)
def test_text_that_names_no_witness_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        HttpWitness.from_text(text)


def test_note_keeps_the_lines_that_are_asked_for() -> None:
    note = head(3)
    assert note.signed_only([line.signer for line in note.signatures]) == note
    assert Note(note.text, ()) == note.signed_only([])
