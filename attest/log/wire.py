"""What goes over the wire when records are handed in: lines, each a leaf or a public key.

A line of a step file is a line here. A line `{"key":hex64}` is the public key of a signer whom
records name by keyid only. Every line ends in a newline; there is no other white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attest import canonical
from attest.errors import FormatError, RefusedError
from attest.keys import PUBLIC_BYTES
from attest.log.admission import Candidate
from attest.log.submission import Submission
from attest.rejections import TABLE, RejectedError, reject

MAX_BODY_BYTES = 8 << 20
MAX_LINES = 1024
LINES_TYPE = "application/jsonl"
ANSWER_TYPE = "application/json"

_KEY = re.compile(rb'\{"key":"([0-9a-f]{64})"\}')
_KEY_START = b'{"key":'
_MAX_WORDS = 400
MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Lines:
    """Hold a body taken apart: leaves and public keys, each in their order; nothing is judged."""

    leaves: tuple[bytes, ...]
    keys: tuple[bytes, ...]


def encode_lines(leaves: Iterable[bytes], keys: Iterable[bytes] = ()) -> bytes:
    """Write a body: keys first."""
    heads = [b'{"key":"%s"}\n' % key.hex().encode() for key in keys]
    return b"".join([*heads, *(leaf + b"\n" for leaf in leaves)])


def split_lines(body: bytes) -> Lines:
    """Take a body apart.

    Raises:
        RejectedError: `body-size`, `body-lines` or `body-form`.
    """
    if len(body) > MAX_BODY_BYTES:
        reject("body-size", "a request", f"more than {MAX_BODY_BYTES} bytes")
    if body.count(b"\n") > MAX_LINES:
        reject("body-lines", "a request", f"more than {MAX_LINES}")
    *lines, rest = body.split(b"\n")
    if rest or not lines:
        reject("body-form", "a request", "the last line is cut or there is none")
    leaves: list[bytes] = []
    keys: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith(_KEY_START):
            leaves.append(line)
        elif match := _KEY.fullmatch(line):
            keys.append(bytes.fromhex(match[1].decode()))
        else:
            reject("body-form", "a request", f"line {number} is no key of {PUBLIC_BYTES} bytes")
    return Lines(tuple(leaves), tuple(keys))


def read_submission(lines: Lines) -> Submission:
    """Check size and shape of every record up to the first that has none.

    Raises:
        RejectedError: of the first record, where that one has none.
    """
    records: list[Candidate] = []
    for leaf in lines.leaves:
        try:
            records.append(Candidate.read(leaf))
        except RejectedError as error:
            if not records:
                raise
            return Submission(tuple(records), lines.keys, then=error)
    return Submission(tuple(records), lines.keys)


def refusal_document(error: RefusedError, taken: Sequence[int] = ()) -> canonical.JSON:
    """Say in an answer why a record or a request is refused, and what was taken before it."""
    words = str(error)[:_MAX_WORDS]
    return {
        "code": error.check,
        "indices": list(taken),
        "message": "".join(c if " " <= c <= "~" else "?" for c in words),
        "rule": error.rule if isinstance(error, RejectedError) else "",
    }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Hold what a service says of a request that it does not carry out, or only in part."""

    code: str
    rule: str
    message: str
    indices: tuple[int, ...]


def read_refusal(data: bytes) -> Refusal | None:
    """Read what a service says of a refusal; None where it is no such answer."""
    value = read_object(data)
    if value is None:
        return None
    code, rule, message = (value.get(name) for name in ("code", "rule", "message"))
    if not (isinstance(code, str) and isinstance(rule, str) and isinstance(message, str)):
        return None
    indices = read_indices(value)
    return Refusal(code, rule, message, indices) if code in TABLE and indices is not None else None


def read_indices(fields: Mapping[str, canonical.JSON]) -> tuple[int, ...] | None:
    """Read the log indices in an answer; None where there are none."""
    found = fields.get("indices")
    if not isinstance(found, list):
        return None
    indices = tuple(item for item in found if type(item) is int and item >= 0)
    return indices if len(indices) == len(found) else None


def read_object(data: bytes) -> dict[str, canonical.JSON] | None:
    """Read an answer that is one object; None where it is none."""
    try:
        value = canonical.decode(data, max_bytes=MAX_ANSWER_BYTES)
    except FormatError:
        return None
    return value if isinstance(value, dict) else None
