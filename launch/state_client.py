"""Asks a server of states over HTTP: patiently while a tree is made, again where a line broke.

Knows no digest: what it returns is bytes that somebody sent.
"""

import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from launch.errors import CommandError, one_line

TRIES = 5
PATIENCE_SECONDS = 600.0
"""How long a server may say that a tree is being made without coming any further."""

ANSWER_SECONDS = 600.0
"""How long one answer may take from question to end: a byte a minute would never time out."""

LONGEST_SECONDS = 24 * 3600.0
"""How long a server may keep somebody waiting for one tree, however much it says meanwhile."""

_TIMEOUT_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
_MAX_WORDS = 4096


class NoAnswerError(Exception):
    """Report that a server could not be reached, or did not come any further; the words say how."""


class RefusedAnswerError(Exception):
    """Report that a server said no; the words are its own."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    data: bytes


class StateClient:
    """Asks one server, with its token where it wants one; `told` gets what it says meanwhile.

    Raises CommandError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        told: Callable[[str], None] = lambda words: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise CommandError(f"--states {url}: neither a folder nor a URL, as http://host:8471")
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, port)
        self._prefix = parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._told = told
        self._pause = pause
        self._line: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def get(self, path: str, *, limit: int) -> bytes:
        """Return a whole answer of at most `limit` bytes.

        Raises NoAnswerError and RefusedAnswerError; longer answers are cut off one byte later.
        """
        return self._patient(path, {}, limit)

    def get_range(self, path: str, start: int, stop: int) -> bytes:
        """Return what the server sends as bytes `start` to `stop`, at most so many and one more.

        Raises NoAnswerError and RefusedAnswerError.
        """
        return self._patient(path, {"Range": f"bytes={start}-{stop - 1}"}, stop - start)

    def _patient(self, path: str, headers: dict[str, str], limit: int) -> bytes:
        """Ask until the tree has been made."""
        waited, known, total = 0.0, "", 0.0
        while True:
            answer = self._again(path, headers, limit)
            if answer.status in (200, 206):
                return answer.data
            words = _words(answer.data)
            if answer.status != 202:
                raise RefusedAnswerError(f"{answer.status}: {words}")
            waited = 0.0 if words != known else waited + _PAUSE_SECONDS
            if words != known:
                self._told(words)
            known = words
            if waited > PATIENCE_SECONDS:
                raise NoAnswerError(f"no further for {PATIENCE_SECONDS:.0f} s: {words}")
            total += _PAUSE_SECONDS
            if total > LONGEST_SECONDS:
                raise NoAnswerError(f"not made in {LONGEST_SECONDS:.0f} s: {words}")
            self._pause(_PAUSE_SECONDS)

    def _again(self, path: str, headers: dict[str, str], limit: int) -> _Answer:
        """Ask until there is an answer: lines break, and servers are busy."""
        words = ""
        for number in range(TRIES):
            try:
                answer = self._once(path, headers, limit)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                words = one_line(str(error) or type(error).__name__)
            else:
                if answer.status not in (429, 502, 503, 504):
                    return answer
                words = f"{answer.status}: {_words(answer.data)}"
            if number < TRIES - 1:
                self._pause(_PAUSE_SECONDS * 2**number)
        raise NoAnswerError(f"no answer in {TRIES} tries: {words[:200]}")

    def _once(self, path: str, headers: dict[str, str], limit: int) -> _Answer:
        if self._line is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._line = kind(*self._address, timeout=_TIMEOUT_SECONDS)
        if self._line.sock is None:
            self._line.connect()
        with _deadline(cast("socket.socket", self._line.sock), ANSWER_SECONDS):
            self._line.request("GET", self._prefix + path, headers=self._headers | headers)
            response = self._line.getresponse()
            good = response.status in (200, 206)
            most = limit + 1 if good else _MAX_WORDS
            data = _read(response, most)
        if not response.isclosed():
            self.close()  # more was coming than anybody asked for
        return _Answer(response.status, data)


@contextmanager
def _deadline(line: socket.socket, seconds: float) -> Generator[None]:
    """Break a line after so many seconds; whoever reads from it then gets an OSError."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):  # it may be closed by now
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise TimeoutError(f"the answer took more than {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"the answer took more than {seconds:.0f} s")


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    """Read up to `most` bytes; one that ends too early raises IncompleteRead."""
    declared = response.length
    data = response.read(most if declared is None else min(most, declared))
    if declared is not None and len(data) < min(most, declared):
        raise http.client.IncompleteRead(data, declared - len(data))
    return data


def _words(data: bytes) -> str:
    """Return what a server says in words, in one printable line."""
    try:
        value: Any = json.loads(data)
    except ValueError:
        return "an answer that is not ours"
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    said = str(fields.get("waiting", fields.get("error", "")))
    return "".join(c if " " <= c <= "~" else "?" for c in said)[:200]
