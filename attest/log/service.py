"""A log over HTTP (Starlette): the application that any ASGI server runs.

    POST /submit[?wait=S]                lines of records; see attest/log/wire.py
    GET  /checkpoint, /tile/...          C2SP tlog-tiles
    GET  /record/H, /record/H/proof      a record; its C2SP tlog-proof
    GET  /proof/inclusion, /consistency  paths between given indices and sizes
    GET  /runs, /run/R, /run/R/records, /run/R/proof
    GET  /names, /checkpoint/SIZE, /healthz, /metrics, /openapi.json

Size and time of a request are limited before a byte of it is parsed, and every refusal carries a
code of attest/rejections.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from attest.errors import AttestError, RefusedError
from attest.log.answer import Answer, failed, number, refused
from attest.log.house import House
from attest.log.metrics import CONTENT_TYPE
from attest.log.wire import MAX_BODY_BYTES, read_submission, split_lines
from attest.rejections import RejectedError, reject

BODY_SECONDS = 30.0
# All bodies that are being read or judged, together.
_MOST_BODY_BYTES = 128 << 20
# Fewer records than this are read where the request came in; more would keep others waiting.
_FEW_BYTES = 16 << 10

Ask = Callable[[Request], Awaitable[Answer]]


def application(house: House) -> Starlette:
    """Return the application that serves an open house, and closes it when the server ends."""
    service = _Service(house)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            # Closing commits and answers what was taken on; the event loop must run meanwhile.
            await asyncio.to_thread(house.close)

    routes = [Route("/submit", _Endpoint(service.submit, house), methods=["POST"])]
    routes += [
        Route(path, _Endpoint(ask, house), methods=["GET"])
        for path, ask in service.questions().items()
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error},
    )


class _Service:
    """Carry questions from HTTP to the desks."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._body_bytes = 0
        self._openapi = files("attest.log").joinpath("openapi.json").read_bytes()

    def questions(self) -> dict[str, Ask]:
        """Return what is asked by GET, by path."""
        read = self._house.reading

        def told(answer: Callable[[Request], Answer]) -> Ask:
            async def ask(request: Request) -> Answer:
                # Files, hashes and a lock: other requests go on meanwhile.
                return await asyncio.to_thread(answer, request)

            return ask

        return {
            "/checkpoint": told(lambda r: read.checkpoint()),
            "/checkpoint/{size}": told(
                lambda r: read.old_checkpoint(number(r.path_params, "size"))
            ),
            "/names": told(lambda r: read.names()),
            "/tile/{path:path}": told(lambda r: read.tile(f"tile/{r.path_params['path']}")),
            "/record/{record}": told(lambda r: read.record(r.path_params["record"])),
            "/record/{record}/proof": told(lambda r: read.record_proof(r.path_params["record"])),
            "/proof/inclusion": told(lambda r: read.inclusion(r.query_params)),
            "/proof/consistency": told(lambda r: read.consistency(r.query_params)),
            "/runs": told(lambda r: read.runs(r.query_params)),
            "/run/{run}": told(lambda r: read.run(r.path_params["run"])),
            "/run/{run}/records": told(
                lambda r: read.run_records(r.path_params["run"], r.query_params)
            ),
            "/run/{run}/proof": told(
                lambda r: read.run_proof(r.path_params["run"], r.query_params)
            ),
            "/healthz": told(lambda r: self._house.health()),
            "/metrics": told(lambda r: Answer(self._house.metrics_text().encode(), CONTENT_TYPE)),
            "/openapi.json": told(lambda r: Answer(self._openapi)),
        }

    async def submit(self, request: Request) -> Answer:
        """Take a body of records."""
        front = self._house.front
        wait = number(request.query_params, "wait", default=0)
        address = "" if request.client is None else request.client.host
        front.quotas.admit(address, 0)
        declared = _declared_length(request)
        if self._body_bytes + declared > _MOST_BODY_BYTES:
            reject("busy", "a request", "too many bodies are being read")
        self._body_bytes += declared
        try:
            body = await _body(request, declared)
            lines = split_lines(body)
            front.quotas.addresses.charge(address, len(lines.leaves))
            if len(body) <= _FEW_BYTES:
                submission = read_submission(lines)
            else:
                submission = await asyncio.to_thread(read_submission, lines)
            return await front.submit(submission, wait)
        finally:
            self._body_bytes -= declared


class _Endpoint:
    """Answer at one path, as an ASGI application: every refusal and failure becomes an answer."""

    def __init__(self, ask: Ask, house: House) -> None:
        self._ask = ask
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._ask(Request(scope, receive))
        except RefusedError as error:
            self._house.front.count_refusal(error)
            answer = refused(error)
        except AttestError as error:
            answer = failed(error)
        await _response(answer)(scope, receive, send)


def _declared_length(request: Request) -> int:
    """Return how large a body will be at most: what it says of itself, or the limit."""
    said = request.headers.get("content-length", "")
    if not said:
        return MAX_BODY_BYTES
    if not said.isdecimal() or len(said) > 12 or int(said) > MAX_BODY_BYTES:
        reject("body-size", "a request", f"more than {MAX_BODY_BYTES} bytes")
    return int(said)


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    reject("body-size", "a request", f"more than {most} bytes")
    except TimeoutError:
        reject("slow", "a request", f"the body took more than {BODY_SECONDS:.0f} s")
    except ClientDisconnect:
        reject("slow", "a request", "the connection broke")
    return bytes(body)


def _response(answer: Answer) -> Response:
    headers = {
        "Cache-Control": answer.cache,
        "X-Content-Type-Options": "nosniff",
        "Content-Type": answer.media_type,
        **answer.headers,
    }
    return Response(answer.data, status_code=answer.status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    code = "method" if status == 405 else "path"
    words = f"{request.method} {request.url.path[:80]!r} is not served here"
    return _response(refused(RejectedError(words, check=code)))
