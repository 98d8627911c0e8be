"""A witness over HTTP (C2SP tlog-witness), as an application that any ASGI server runs (Starlette).

    POST /add-checkpoint                   cosign a head that extends the newest one
    GET  /<sha256 of an origin>/checkpoint  the newest head cosigned, for monitors
    GET  /healthz

Answers: 200 with the cosignature's line, 400 malformed or an old size above the head's, 403 not
signed by the log, 404 unknown origin, 409 with the size that the witness is at, 413 too large,
422 no extension of what was cosigned, 429 too often, 503 the witness cannot sign now.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from attest.checkpoint import Checkpoint
from attest.errors import AttestError, EquivocationError, FormatError, InputError, RefusedError
from attest.log.quota import Quota, Rate
from attest.note import Note
from attest.witness import Witness
from attest.witness_wire import (
    ADD_CHECKPOINT,
    MAX_REQUEST_BYTES,
    SIZE_TYPE,
    AddCheckpoint,
    encode_lines,
    encode_size,
)

BODY_SECONDS = 10.0
ADDRESS_RATE = Rate(per_second=50, burst=500)
_TEXT = "text/plain; charset=utf-8"
_NAME = re.compile(r"[0-9a-f]{64}")
_STATUS: Mapping[str, int] = {
    "origin": 404,
    "note signature": 403,
    "rollback": 400,
    "consistency": 422,
    "clock": 503,
}


def application(witness: Witness, *, address_rate: Rate = ADDRESS_RATE) -> Starlette:
    """Return the application that serves a witness."""
    service = _Service(witness, Quota(address_rate))
    return Starlette(
        routes=[
            Route(ADD_CHECKPOINT, service.add_checkpoint, methods=["POST"]),
            Route("/healthz", service.health),
            Route("/{name}/checkpoint", service.newest),
        ]
    )


class _Service:
    def __init__(self, witness: Witness, quota: Quota) -> None:
        self._witness = witness
        self._quota = quota

    async def add_checkpoint(self, request: Request) -> Response:
        address = "" if request.client is None else request.client.host
        if seconds := self._quota.wait(address):
            return _said(429, "too many requests", {"Retry-After": str(seconds)})
        self._quota.charge(address, 1)
        body = await _body(request)
        if body is None:
            return _said(413, "the request is too large, or came in too slowly")
        return await asyncio.to_thread(self._cosigned, body)

    async def newest(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not _NAME.fullmatch(name):
            return _said(404, "a log is named by the SHA-256 of its origin")
        try:
            note = await asyncio.to_thread(self._witness.newest_of, name)
        except InputError:
            return _said(404, "no head of that log was cosigned here")
        return Response(note, media_type=_TEXT, headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        return _said(200, self._witness.vkey.to_text())

    def _cosigned(self, body: bytes) -> Response:
        try:
            asked = AddCheckpoint.from_bytes(body)
        except FormatError as error:
            return _said(400, str(error))
        try:
            line = self._witness.cosign(asked.old, asked.proof, asked.note)
        except FormatError as error:
            return _said(400, str(error))
        except EquivocationError as error:
            return _said(422, str(error))
        except RefusedError as error:
            if error.check == "old size":
                return self._other_size(asked.note)
            return _said(_STATUS.get(error.check, 503), str(error))
        except AttestError as error:
            return _said(503, str(error))
        return Response(encode_lines([line]), media_type=_TEXT)

    def _other_size(self, note: bytes) -> Response:
        size = self._witness.size(Checkpoint.from_text(Note.from_bytes(note).text).origin)
        return Response(encode_size(size), status_code=409, headers={"Content-Type": SIZE_TYPE})


async def _body(request: Request) -> bytes | None:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_REQUEST_BYTES:
                    return None
    except (TimeoutError, ClientDisconnect):
        return None
    return bytes(body)


def _said(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    text = "".join(c if " " <= c <= "~" else "?" for c in words[:400])
    return Response(text + "\n", status_code=status, media_type=_TEXT, headers=dict(headers or {}))
