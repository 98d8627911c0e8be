"""Serves regenerated trees over HTTP on this machine's loopback; reads nothing from the disk.

    GET /v1/<state|gradient>/<step>/manifest    what the tree is made of, signed
    GET /v1/<state|gradient>/<step>/tiles/<i>   digests of tensor i's tiles, 32 bytes each
    GET /v1/<state|gradient>/<step>/data/<i>    bytes of tensor i, tile after tile; takes Range

200 and 206 carry the thing, 202 says that the tree is being made, 404 that it is not to be had. A
path is matched as a whole, so nothing but these can be asked for. An answer has at most MAX_RANGE
bytes of data; MAX_CLIENTS connections are served at a time.
"""

import errno
import hmac
import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from launch.errors import CommandError
from launch.state_shelf import Refused, Shelf, Shown, Waiting, Wish

ADDRESS = "127.0.0.1"
TOKEN = "ANH_STATES_TOKEN"
"""The environment variable that holds the token, for those who serve and those who ask."""

MAX_RANGE = 8 << 20
MAX_CLIENTS = 16
_IDLE_SECONDS = 30
_PATH = re.compile(
    r"/v1/(state|gradient)/(0|[1-9]\d{0,15})/(manifest|(tiles|data)/(0|[1-9]\d{0,8}))"
)
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")


class StateServer(ThreadingHTTPServer):
    """Answers from a shelf; with a `token`, only requests that bear it.

    `told` is called with one line for each manifest that is handed over. Raises CommandError where
    the port is taken.
    """

    daemon_threads = True

    def __init__(
        self, port: int, shelf: Shelf, *, token: str | None, told: Callable[[str], None]
    ) -> None:
        self.shelf = shelf
        self.token = token
        self.told = told
        self._free = threading.Semaphore(MAX_CLIENTS)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            words = "is taken by another program" if taken else f"cannot be opened ({error})"
            raise CommandError(f"--port {port}: {words}; name another, or 0 for any") from error

    @property
    def url(self) -> str:
        """Return where the server is reached from this machine."""
        return f"http://localhost:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take one more client, or close the connection where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one client, and let the next one in afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server_version = "anh"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: StateServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        super().setup()
        # Small answers follow small questions: waiting to fill a packet would double their time.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        """Answer a question about one tree."""
        if not self._may_ask():
            self._say(401, f"a token is needed: set {TOKEN}")
            return
        match = _PATH.fullmatch(self.path)
        if match is None:
            self._say(404, "no such thing is served")
            return
        wish = Wish(match[1], int(match[2]))
        found = self.server.shelf.find(wish)
        if isinstance(found, Refused):
            self._say(404, found.words)
        elif isinstance(found, Waiting):
            self._json(202, {"waiting": found.words, "done": found.done})
        elif match[3] == "manifest":
            self.server.told(f"showing {wish.part} {wish.step}")
            self._send(200, found.shown, "application/json")
        elif int(match[5]) >= found.tensors:
            self._say(404, f"the tree has {found.tensors} tensors")
        elif match[4] == "tiles":
            self._send(200, found.tile_digests(int(match[5])), "application/octet-stream")
        else:
            self._data(found, int(match[5]))

    def log_message(self, format: str, *args: object) -> None:
        """Leave out http.server's own lines."""

    def _may_ask(self) -> bool:
        token = self.server.token
        said = self.headers.get("Authorization", "")
        return token is None or hmac.compare_digest(said.encode(), f"Bearer {token}".encode())

    def _data(self, tree: Shown, index: int) -> None:
        size = tree.size(index)
        asked = self.headers.get("Range")
        start, stop = 0, size
        if asked is not None:
            match = _RANGE.fullmatch(asked)
            start, stop = (0, 0) if match is None else (int(match[1]), int(match[2]) + 1)
            if not start < stop <= size:
                self._say(416, f"the tensor has {size} bytes; ask for bytes=FIRST-LAST within it")
                return
        if stop - start > MAX_RANGE:
            self._say(416, f"ask for at most {MAX_RANGE} bytes at once, by Range")
            return
        data = tree.read(index, start, stop)
        self._send(200 if asked is None else 206, data, "application/octet-stream")

    def _say(self, status: int, words: str) -> None:
        self._json(status, {"error": words})

    def _json(self, status: int, value: dict[str, object]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)
