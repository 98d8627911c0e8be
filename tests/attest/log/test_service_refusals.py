"""A log over HTTP against those who mean it no good: each is refused, with a code."""

import base64
import http.client
import json
import socket
import time
from types import ModuleType
from typing import Any

import pytest

from attest.log import front_desk, service
from attest.log.quota import Rate
from attest.log.wire import MAX_BODY_BYTES, MAX_LINES
from attest.rejections import TABLE
from attest.statements import Conflict, decode_statement
from launch import http_server

SMALL_ORDER = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no newline at the end": (b"{}", "body-form"),
    "a cut line after whole ones": (b"{}\n{}", "body-form"),
    "nothing": (b"\n", "statement"),
    "free text": (b"hello\n", "statement"),
    "NaN": (b'{"payload":NaN,"payloadType":"","signatures":[]}\n', "statement"),
    "a float": (b'{"payload":1.0,"payloadType":"","signatures":[]}\n', "statement"),
    "deep JSON": (b"[" * 60_000 + b"]" * 5_000 + b"\n", "statement"),
    "a long integer": (b'{"payload":' + b"9" * 4300 + b"}\n", "statement"),
    "a key twice": (b'{"payload":"","payload":"","signatures":[]}\n', "statement"),
    "another byte": (b'{"payload":"\xc3\xa9"}\n', "statement"),
    "a lone surrogate": (b'{"payload":"\\ud800"}\n', "statement"),
    "too large a record": (b'"' + b"x" * 65_536 + b'"\n', "size"),
    "too many lines": (b"{}\n" * (MAX_LINES + 1), "body-lines"),
    "a key that is none": (b'{"key":"00"}\n', "body-form"),
    "a small-order key": (b'{"key":"%s"}\n' % SMALL_ORDER.encode(), "key"),
    "a key off the curve": (b'{"key":"%s"}\n' % (b"02" + b"00" * 31), "key"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_body_is_refused_with_its_code_and_changes_nothing(quiet: Any, kind: str) -> None:
    body, code = HOSTILE[kind]
    reply = quiet.ask("POST", "/submit", body)
    assert (reply.code, reply.status) == (code, TABLE[code].status)
    assert quiet.log.size == 6
    assert quiet.get("/healthz").json["healthy"] is True


def test_body_larger_than_any_request_is_refused_before_it_is_read(
    begun: tuple[Any, Any],
) -> None:
    served, _ = begun
    line = http.client.HTTPConnection(*served.address, timeout=30)
    line.putrequest("POST", "/submit")
    line.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    line.endheaders()
    reply = line.getresponse()
    assert (reply.status, json.loads(reply.read())["code"]) == (413, "body-size")
    line.close()


def test_chunked_body_that_never_ends_is_refused(
    begun: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_BODY_BYTES", 1 << 16)
    served, _ = begun
    with socket.create_connection(served.address, timeout=30) as line:
        line.sendall(b"POST /submit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            line.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert b" 413 " in line.recv(1000)


def altered(envelope: Any, old: bytes, new: bytes) -> bytes:
    payload = envelope.payload.replace(old, new)
    assert payload != envelope.payload
    return envelope.to_bytes().replace(
        base64.b64encode(envelope.payload), base64.b64encode(payload)
    )


def test_records_that_lie_are_refused_each_with_its_code(
    begun: tuple[Any, Any], lab: ModuleType
) -> None:
    served, run = begun
    stranger = lab.Lab(name="stranger")
    stranger.attempt(1)
    good = run.step(1, 4)
    spelled = good.to_bytes().replace(b"==", b"=A", 1).replace(b'="', b'x"', 1)
    cases: dict[str, bytes] = {
        "signature": altered(good, b'"step":4', b'"step":5'),
        "statement": spelled,
        "signers": run.step(1, 4, signers=["somebody"]).to_bytes(),
        "step-order": run.step(1, 9).to_bytes(),
        "attempt-unknown": stranger.step(1, 1).to_bytes(),
        "run-unknown": stranger.final(1).to_bytes(),
        "key-unknown": run.intent("nobody knows me").to_bytes(),
        "key-role": run.intent("lab").to_bytes(),
        "final-early": run.final(9).to_bytes(),
        "step-run": run.step(1, 4, run="ab" * 32).to_bytes(),
        "step-prev": run.step(1, 4, prev="cd" * 32).to_bytes(),
        "step-conflict": run.step(1, 3, loss="0x1.8000000000000p+0").to_bytes(),
    }
    for code, leaf in cases.items():
        reply = served.submit(leaf)
        assert (reply.code, reply.status) == (code, TABLE[code].status)
    assert served.submit(good).status == 200


def test_key_in_debt_waits_and_others_do_not(serve: Any, lab: ModuleType) -> None:
    served = serve(key_rate=Rate(per_second=0.5, burst=3))
    run, other = lab.Lab(), lab.Lab(name="other")
    assert served.submit(*run.opening(), keys=(run.author,)).status == 200
    assert served.submit(*run.train(1, 1, 5)).status == 200  # the last that its credit allows
    reply = served.submit(run.step(1, 6))
    assert (reply.status, reply.code) == (429, "quota")
    assert int(reply.headers["retry-after"]) >= 3
    assert served.submit(other.genesis, other.attempt(1)).status == 200


def test_nobody_spends_anothers_quota_with_records_that_it_never_signed(
    serve: Any, lab: ModuleType
) -> None:
    served = serve(key_rate=Rate(per_second=0.001, burst=3))
    run = lab.Lab()
    assert served.submit(*run.opening(), keys=(run.author,)).status == 200
    forged = altered(run.step(1, 1), b'"loss":"0x1.0', b'"loss":"0x1.8')
    for _ in range(8):
        assert served.submit(forged).code == "signature"
    assert served.submit(run.steps[1][1]).status == 200


def test_address_that_asks_too_much_waits(serve: Any) -> None:
    served = serve(address_rate=Rate(per_second=0.001, burst=3))
    assert [served.submit(b"{}").status for _ in range(4)] == [400, 400, 429, 429]


def test_connection_that_brings_no_request_in_time_is_closed(
    begun: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.3)
    served, _ = begun
    for first in (b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "):
        with socket.create_connection(served.address, timeout=10) as line:
            line.sendall(first)
            start = time.monotonic()
            try:
                for _ in range(100):
                    line.sendall(b"a" if first else b"")
                    line.settimeout(0.1)
                    try:
                        if line.recv(100) == b"":
                            break
                    except TimeoutError:
                        continue
            except OSError:
                pass  # reset: closed as well
            assert time.monotonic() - start < 5


def test_head_of_a_request_that_does_not_end_is_cut(begun: tuple[Any, Any]) -> None:
    served, _ = begun
    with socket.create_connection(served.address, timeout=10) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"."):
            for _ in range(100):
                line.sendall(b"X-Long: " + b"a" * 1000 + b"\r\n")
                time.sleep(0.01)
        assert served.get("/healthz").status == 200


def test_slow_body_is_given_up(begun: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    served, _ = begun
    with socket.create_connection(served.address, timeout=10) as line:
        line.sendall(b"POST /submit HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        assert b" 408 " in line.recv(1000)


def test_server_keeps_a_connection_longer_than_anybody_may_wait_for_a_checkpoint() -> None:
    assert front_desk.MOST_WAIT_SECONDS + service.BODY_SECONDS < http_server.REQUEST_SECONDS


def conflict_of(served: Any, run: Any) -> Conflict:
    """Return the conflict that the log reports of a run, once it does."""
    deadline = time.monotonic() + 20
    while not served.get(f"/run/{run.run}").json.get("conflicts"):
        assert time.monotonic() < deadline, "no conflict is reported"
        time.sleep(0.02)
    said = decode_statement(served.log.entry(served.log.size - 1).payload)
    assert isinstance(said, Conflict)
    return said


def test_contradiction_that_is_refused_is_reported_in_the_log(serve: Any, lab: ModuleType) -> None:
    served = serve(reporter=lab.key("reporter"))
    run = lab.Lab()
    served.submit(*run.opening(), *run.train(1, 1, 9), keys=(run.author,))
    honest = run.steps[1][4]
    other = run.step(1, 4, loss="0x1.8000000000000p+0")
    assert served.submit(other).code == "step-conflict"
    said = conflict_of(served, run)
    assert {said.first, said.second} == {honest, other}
    # One is enough: a run does not fill the log with what it contradicts.
    size = served.log.size
    assert served.submit(run.step(1, 4, loss="0x1.c000000000000p+0")).code == "step-conflict"
    assert served.submit(run.step(1, 10), query="?wait=9").status == 200
    time.sleep(0.2)
    assert served.log.size == size + 1


def test_second_final_is_reported_and_so_is_a_step_that_another_attempt_has_too(
    serve: Any, lab: ModuleType
) -> None:
    served = serve(reporter=lab.key("reporter"))
    run, other = lab.Lab(), lab.Lab(name="other")
    served.submit(*run.opening(), *run.train(1, 1, 5), keys=(run.author,))
    served.submit(other.genesis, other.attempt(1), *other.train(1, 1, 6))
    served.submit(other.attempt(2, after=(1, 3)), *other.train(2, 4, 8))
    first, second = run.final(5), run.final(5, loss=7)
    assert served.submit(first).status == 200
    assert served.submit(second).code == "final-conflict"
    said = conflict_of(served, run)
    assert {said.first, said.second} == {first, second}
    honest, lie = other.steps[2][5], other.step(2, 5, loss="0x1.8000000000000p+0")
    assert served.submit(lie).code == "step-conflict"
    said = conflict_of(served, other)
    assert {said.first, said.second} == {honest, lie}


def test_nothing_is_reported_of_a_record_that_its_keys_have_not_signed(
    serve: Any, lab: ModuleType
) -> None:
    served = serve(reporter=lab.key("reporter"))
    run = lab.Lab()
    served.submit(*run.opening(), *run.train(1, 1, 5), keys=(run.author,))
    forged = altered(run.steps[1][3], b'"loss":"0x1.0', b'"loss":"0x1.8')
    assert served.submit(forged).code == "signature"
    assert served.submit(run.step(1, 6), query="?wait=9").status == 200
    assert served.get(f"/run/{run.run}").json["conflicts"] == 0
