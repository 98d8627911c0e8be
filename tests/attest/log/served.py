"""A log served on a loopback port, and asked like any client asks it.

Loaded by file name from this folder's conftest.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.errors import InputError
from attest.log import service
from attest.log.house import House
from attest.log.sequencer import LocalLog
from attest.log.wire import encode_lines
from launch.http_server import HttpServer, Place


@dataclass(frozen=True)
class Reply:
    status: int
    data: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        return self.json["code"]


class Served:
    """A served log, asked over one connection per question."""

    def __init__(self, house: House, log: LocalLog, port: int = 0) -> None:
        self.log = log
        self.house = house
        self.server = HttpServer(service.application(house), Place(port=port))
        began = threading.Event()
        house.open()
        self.thread = threading.Thread(target=self.server.run, args=(began.set,))
        self.thread.start()
        assert began.wait(20)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.url.removeprefix("http://").split(":")
        return host, int(port)

    def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        line = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            line.request(method, path, body or None)
            reply = line.getresponse()
            return Reply(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
        finally:
            line.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def submit(self, *records: Any, keys: tuple[bytes, ...] = (), query: str = "") -> Reply:
        leaves = [r if isinstance(r, bytes) else r.to_bytes() for r in records]
        return self.ask("POST", "/submit" + query, encode_lines(leaves, keys))

    def file(self, path: str) -> bytes:
        reply = self.get("/" + path)
        if reply.status != 200:
            raise InputError(path)
        return reply.data

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def serving(log: LocalLog, directory: Path, port: int = 0, **options: Any) -> Iterator[Served]:
    """Serve a log for the time of a `with` block, with the options of a House."""
    house = House(log, directory, **({"checkpoint_seconds": 0.02} | options))
    served = Served(house, log, port)
    try:
        yield served
    finally:
        served.stop()
