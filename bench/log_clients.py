"""Many submitters, each on a connection of its own, hand records to a served log one by one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from logged_run import GeneratedRun

from attest.envelope import sign
from attest.keys import PrivateKey
from attest.log.sequencer import LocalLog
from attest.log.wire import encode_lines
from attest.statements import Intent, encode_statement

_SIGNERS = 20


@dataclass(frozen=True)
class Waits:
    """Two quantiles of what submitters waited, in milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True)
class Told:
    """What a run of submitters saw; `waits` in seconds, `core` is the load generator's."""

    waits: Sequence[float]
    per_second: float
    server_cpu_us: float
    core: int


def spread_of_waits(seconds: Sequence[float]) -> Waits:
    """Return the median and the 95th percentile."""
    cuts = statistics.quantiles(seconds, n=20)
    return Waits(1e3 * cuts[9], 1e3 * cuts[18])


class ServedLog:
    """Serve a new log by `anh log serve` in a process of its own; all records are signed before."""

    def __init__(self, folder: Path, clients: int, each: int) -> None:
        self._bodies = _prepare(folder, clients, each)
        root = Path(__file__).resolve().parent.parent
        words = ["log", "serve", str(folder), "--port", "0", "--json"]
        self._server = subprocess.Popen(
            [sys.executable, "-m", "launch", *words],
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )
        assert self._server.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            said += self._server.stdout.readline()
        self._url = urlsplit(json.loads(said)["url"])

    def __enter__(self) -> ServedLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(60)

    def run(self) -> Told:
        """Let all submitters go at once, each again once its last record is acknowledged."""
        mine, core = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
        try:
            before, began = self._cpu(), time.perf_counter()
            waits = asyncio.run(self._all())
            seconds = time.perf_counter() - began
        finally:
            os.sched_setaffinity(0, mine)
        cpu = 1e6 * (self._cpu() - before) / len(waits)
        return Told(waits, len(waits) / seconds, cpu, core)

    async def _all(self) -> list[float]:
        found = await asyncio.gather(*(self._one(bodies) for bodies in self._bodies))
        return [wait for waits in found for wait in waits]

    async def _one(self, bodies: Sequence[bytes]) -> list[float]:
        reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        waits: list[float] = []
        for body in bodies:
            began = time.perf_counter()
            head = f"POST /submit HTTP/1.1\r\nHost: log\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status = await _answer(reader)
            if status >= 300:
                raise SystemExit(f"the log answered {status}")
            waits.append(time.perf_counter() - began)
        writer.close()
        await writer.wait_closed()
        return waits

    def _cpu(self) -> float:
        """Return the CPU seconds of the server."""
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def _prepare(folder: Path, clients: int, each: int) -> list[list[bytes]]:
    """Make a log that knows a contract and the signers; return what each submitter will send."""
    run = GeneratedRun(1)
    (folder / "keys").mkdir(parents=True)
    for name in ("log", "witness"):
        run.keys[name].save(folder / "keys" / name)
    keys = run.keys["log"], run.keys["witness"]
    contract = run.opening()[0]
    auditors = [PrivateKey.generate() for _ in range(_SIGNERS)]
    subject = _contract_id(run)

    def intent(auditor: PrivateKey) -> bytes:
        statement = Intent("contract", subject, "auditor.example", os.urandom(32).hex())
        return sign(encode_statement(statement), [auditor]).to_bytes()

    with LocalLog.create(folder / "log", *keys, "log.example/served") as log:
        log.append([contract], keys=[run.keys["author"].public])
        log.checkpoint()
    publics = [auditor.public for auditor in auditors]
    return [
        [
            encode_lines([intent(auditors[client % _SIGNERS])], [publics[client % _SIGNERS]])
            for _ in range(each)
        ]
        for client in range(clients)
    ]


def _contract_id(run: GeneratedRun) -> str:
    from attest.statements import ContractStatement, decode_statement

    published = decode_statement(run.opening()[0].payload)
    assert isinstance(published, ContractStatement)
    return published.contract.id
