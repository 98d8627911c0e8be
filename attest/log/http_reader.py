"""Asks a service over HTTP with the standard library: bounded answers, deadlines, and retries.

A service that is away, or says that it cannot answer now, is asked again for a while; then it is an
InputError, and whoever asked may come again later.
"""

from __future__ import annotations

import http.client
import random
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO

from attest.errors import InputError
from attest.log.wire import LINES_TYPE, Refusal, read_refusal
from attest.rejections import RejectedError, is_transient

MAX_ANSWER_BYTES = 32 << 20
_CHUNK = 1 << 16
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Say how often to ask, and how long to wait for one answer (seconds)."""

    tries: int = 4
    first_pause: float = 0.2
    answer: float = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold an answer of status 2xx, and its headers by lower-case name."""

    status: int
    data: bytes
    headers: Mapping[str, str]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow nobody elsewhere: an address is what its owner wrote down."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Take a redirection for the answer itself."""


def _opener() -> urllib.request.OpenerDirector:
    """Return what asks over HTTP alone, no files, and by the environment's proxies if any."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _NoRedirect(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


@dataclass(frozen=True, slots=True)
class HttpReader:
    """Ask one service, at `url` without a slash at its end.

    Raises:
        InputError: for an address that is none of http or https.
    """

    url: str
    patience: Patience = field(default_factory=Patience)
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise InputError(f"{self.url!r}: is no address of a service, as https://log.example")

    def get(self, path: str) -> Reply:
        """Ask for a path, which begins with a slash.

        Raises:
            RejectedError: whose `check` is the code of the service's refusal.
            InputError: if the service is away or cannot answer.
        """
        return self._ask(path, None)

    def post(self, path: str, body: bytes) -> Reply:
        """Hand a body in; what is asked twice must do no harm."""
        return self._ask(path, body)

    def file(self, path: str) -> bytes:
        """Return a file of the service by its path, without a slash before it.

        Raises:
            InputError: also where the service has no such file.
        """
        try:
            return self.get("/" + path).data
        except RejectedError as error:
            raise InputError(f"{self.url}/{path}: {error}") from None

    def _ask(self, path: str, body: bytes | None) -> Reply:
        pause, words = self.patience.first_pause, ""
        for attempt in range(self.patience.tries):
            if attempt:
                # Not all at once, when a service comes back and a thousand hosts have waited.
                self.pause(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                return self._once(path, body)
            except RejectedError as error:
                if not is_transient(error.check):
                    raise
                words = str(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                words = _reason(error)
        raise InputError(f"{self.url}: gives no answer ({words}); try again later")

    def _once(self, path: str, body: bytes | None) -> Reply:
        reply = exchange(self.url + path, body, LINES_TYPE, self.patience.answer)
        if 200 <= reply.status < 300:
            return reply
        raise _refused(read_refusal(reply.data), reply.status)


def exchange(url: str, body: bytes | None, media_type: str, seconds: float) -> Reply:
    """Ask once, and return the answer whatever its status.

    Raises:
        OSError, http.client.HTTPException, ValueError: if there is none.
    """
    headers = {"User-Agent": "anh"} | ({"Content-Type": media_type} if body is not None else {})
    request = urllib.request.Request(url, data=body, headers=headers)
    deadline = time.monotonic() + seconds
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            return _reply(answer.status, answer, deadline)
    except urllib.error.HTTPError as error:
        with error:
            return _reply(error.code, error, deadline)


def _reply(
    status: int, answer: http.client.HTTPResponse | urllib.error.HTTPError, deadline: float
) -> Reply:
    names = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(status, _read(answer, deadline), names)


class RefusedByServiceError(RejectedError):
    """Report what a service refused; `indices` are those of the records it took before."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, check=refusal.code, rule=refusal.rule)
        self.indices = refusal.indices


def _refused(refusal: Refusal | None, status: int) -> Exception:
    if refusal is None:
        return OSError(f"status {status}, and no words of ours")
    return RefusedByServiceError(refusal)


def _read(answer: IO[bytes] | http.client.HTTPResponse, deadline: float) -> bytes:
    data = bytearray()
    while part := answer.read(_CHUNK):
        data += part
        if len(data) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        # A byte a minute would never time out by itself.
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    # http.client takes an early end for the end: a server that died has said less than it was to.
    if missing := getattr(answer, "length", None):
        raise http.client.IncompleteRead(bytes(data), missing)
    return bytes(data)


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError | socket.timeout):
        return str(inner) or "no answer in time"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__
