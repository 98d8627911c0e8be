"""Runs an ASGI application with uvicorn: on loopback by default, with limits that uvicorn lacks.

A connection that does not bring the head of a request in time, brings too long a one, or does not
take its answer, is closed. Ctrl-C and SIGTERM end the server after what it has taken on.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from launch.errors import CommandError

HEAD_SECONDS = 10.0
REQUEST_SECONDS = 120.0
MOST_HEAD_BYTES = 16 << 10
MOST_CONNECTIONS = 2048
_GRACE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen; port 0 takes any free one. `proxy` may say whom it forwards for."""

    host: str = "127.0.0.1"
    port: int = 0
    proxy: str = ""


class PatientProtocol(HttpToolsProtocol):
    """Serve a connection that keeps to the limits, and close one that does not."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        """Give the first request its time."""
        super().connection_made(transport)
        self._give(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._give(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and hang up on a head that does not end."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # The head may have ended within these bytes: what came with it is then no head.
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Give the request, and whoever takes its answer, their time."""
        self._in_head = False
        self._give(REQUEST_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the head of another request."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def on_response_complete(self) -> None:
        """Give the next request its time."""
        super().on_response_complete()
        self._give(HEAD_SECONDS)

    def _give(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, unless something is given again."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)


class HttpServer:
    """Serve one application until it is stopped.

    Raises:
        CommandError: where the port is taken.
    """

    def __init__(self, application: Any, place: Place) -> None:
        self.application = application
        self._socket = _listening(place)
        config = uvicorn.Config(
            application,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(place.proxy),
            forwarded_allow_ips=place.proxy or None,
            limit_concurrency=MOST_CONNECTIONS,
            backlog=MOST_CONNECTIONS,
            timeout_keep_alive=int(HEAD_SECONDS),
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = _Server(config)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, began: Callable[[], None]) -> None:
        """Serve in this thread until Ctrl-C, SIGTERM or `stop`; `began` is called at the start."""
        self._server.began = began
        self._server.run(sockets=[self._socket])
        if not self._server.started:
            raise CommandError(f"{self.url}: the server did not start")

    def stop(self) -> None:
        """End the server after what it has taken on; any thread may call this."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Tell when it has begun, and obey SIGTERM quietly."""

    began: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: Any = None) -> None:
        """Say so once requests are answered."""
        await super().startup(sockets=sockets)
        if self.started:
            self.began()

    async def shutdown(self, sockets: Any = None) -> None:
        """Finish what was taken on."""
        await super().shutdown(sockets=sockets)
        # SIGTERM has been obeyed; raised again, as uvicorn does, it would look like a crash.
        kept = [number for number in self._captured_signals if number != signal.SIGTERM]
        self._captured_signals[:] = kept


def _listening(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((place.host, place.port))
        found.listen(MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        found.close()
        raise CommandError(
            f"{place.host}:{place.port}: cannot be listened on ({error}); name another --port, or "
            "0 for any"
        ) from error
    found.set_inheritable(True)
    return found
