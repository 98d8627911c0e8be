"""What a service answers, whatever carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attest import canonical
from attest.errors import AttestError, RefusedError
from attest.log.wire import ANSWER_TYPE, refusal_document
from attest.rejections import TABLE, RejectedError, reject

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
FOR_EVER = "public, max-age=31536000, immutable"
NEVER = "no-store"
_MAX_NUMBER = 19


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold an answer: bytes, their media type, an HTTP status, and how long a cache may keep it."""

    data: bytes
    media_type: str = ANSWER_TYPE
    status: int = 200
    cache: str = NEVER
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def json_answer(value: canonical.JSON, *, status: int = 200, cache: str = NEVER) -> Answer:
    """Return an answer of canonical JSON."""
    return Answer(canonical.encode(value), status=status, cache=cache)


def refused(error: RefusedError, taken: tuple[int, ...] = ()) -> Answer:
    """Return the answer that a refusal makes, with the status that the table gives its code."""
    said = TABLE.get(error.check)
    if said is None:
        return failed(error)
    headers = {"Retry-After": str(getattr(error, "seconds", 1))} if said.status == 429 else {}
    data = canonical.encode(refusal_document(error, taken))
    return Answer(data, status=said.status, headers=headers)


def failed(error: AttestError) -> Answer:
    """Return the answer of a service whose log cannot be read or is damaged."""
    words = f"the log cannot answer: {error}"
    return refused(RejectedError(words, check="unavailable"))


def number(asked: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    """Read a number out of a question.

    Raises:
        RejectedError: (`question`) if it is missing or no plain decimal.
    """
    text = asked.get(name)
    if text is None:
        if default is None:
            reject("question", "a question", f"give {name}=NUMBER")
        return default
    plain = text.isascii() and text.isdecimal() and len(text) <= _MAX_NUMBER
    if not plain or str(int(text)) != text:
        reject("question", "a question", f"{name} is no plain number")
    return int(text)
