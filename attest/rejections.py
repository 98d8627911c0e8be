"""Why a log refuses: one table of codes, read by the log, by its service and by whoever asks it.

A code is stable, its words are not. Where a code stands for a whole format, the `rule` of a
`RejectedError` names the broken rule of it (`FormatError.code`): what the light client says of the
same bytes, since both read them with the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from attest.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Rejection:
    """Say what a code means, as in "a record: it {words}", and the status of an HTTP answer."""

    words: str
    status: int


_MALFORMED, _FORBIDDEN, _CONFLICT, _TOO_LARGE, _OUT_OF_PLACE = 400, 403, 409, 413, 422

# What admission says of a record. The order is that of the checks: cheap ones first.
RECORDS: Mapping[str, Rejection] = {
    "size": Rejection("is larger than a log entry may be", _TOO_LARGE),
    "statement": Rejection("is no statement of this protocol", _MALFORMED),
    "key": Rejection("comes with a public key that is malformed or of small order", _MALFORMED),
    "key-unknown": Rejection(
        "is signed by a key that this log does not know; hand in its public key too", _FORBIDDEN
    ),
    "key-role": Rejection(
        "uses a key that has another role in this log; one key, one role", _FORBIDDEN
    ),
    "signers": Rejection("is not signed by exactly the keys that its kind demands", _FORBIDDEN),
    "signature": Rejection("has a signature that does not verify", _FORBIDDEN),
    "signer-differs": Rejection("is in the log already, signed by another key", _CONFLICT),
    "contract-unknown": Rejection(
        "names a contract that is not in the log; log the contract first", _OUT_OF_PLACE
    ),
    "run-unknown": Rejection("names a run whose genesis is not in the log", _OUT_OF_PLACE),
    "run-closed": Rejection("belongs to a run whose final record is in the log", _OUT_OF_PLACE),
    "attempt-unknown": Rejection("names an attempt that is not in the log", _OUT_OF_PLACE),
    "attempt-number": Rejection("does not count on from the run's attempts so far", _OUT_OF_PLACE),
    "attempt-origin": Rejection(
        "resumes from what is no record of this run at this step in the log", _OUT_OF_PLACE
    ),
    "step-run": Rejection("names another run than its attempt", _OUT_OF_PLACE),
    "step-conflict": Rejection(
        "is a second, different record of a step that its attempt has logged", _CONFLICT
    ),
    "step-order": Rejection("is not the step that follows in its attempt", _OUT_OF_PLACE),
    "step-prev": Rejection(
        "has a row whose prev is not the hash of the row that it follows", _OUT_OF_PLACE
    ),
    "segment-conflict": Rejection(
        "is a second, different record of steps that its attempt has logged", _CONFLICT
    ),
    "segment-order": Rejection(
        "does not begin with the step after the last segment of its attempt", _OUT_OF_PLACE
    ),
    "segment-prev": Rejection(
        "has a prev that is not the hash of the row that it follows", _OUT_OF_PLACE
    ),
    "final-early": Rejection(
        "closes a run at a step that the log has no record of; ship the steps first", _OUT_OF_PLACE
    ),
    "final-conflict": Rejection("is a second, different final record of its run", _CONFLICT),
    "intent-unknown": Rejection(
        "names an intent that is not in the log, or another key's", _OUT_OF_PLACE
    ),
    "nonce-commitment": Rejection(
        "reveals another nonce than its intent committed to", _OUT_OF_PLACE
    ),
    "nonce-early": Rejection(
        "reveals a nonce before the run's final record is in the log", _OUT_OF_PLACE
    ),
    "final-unknown": Rejection(
        "names a final record that is not the run's in the log", _OUT_OF_PLACE
    ),
    "key-origin": Rejection("is a key event for another log", _OUT_OF_PLACE),
    "key-ended": Rejection(
        "is signed by a key that its owner does not let sign at this index", _FORBIDDEN
    ),
    "status-head": Rejection(
        "is about another log, or about more entries than this log has", _OUT_OF_PLACE
    ),
}

# What a service says of a request before any record is judged. Those of 408, 429 and 5xx are for
# now: the same request may be taken later.
REQUESTS: Mapping[str, Rejection] = {
    "path": Rejection("asks for what is not served", 404),
    "method": Rejection("uses a method that this path does not take", 405),
    "question": Rejection("has a parameter that is missing, malformed or out of range", 400),
    "absent": Rejection("asks for what the log does not hold", 404),
    "not-yet": Rejection("asks for more entries than a published checkpoint covers", 404),
    "slow": Rejection("came in too slowly", 408),
    "body-size": Rejection("has a larger body than a request may have", _TOO_LARGE),
    "body-lines": Rejection("has more lines than a request may have", _TOO_LARGE),
    "body-form": Rejection("has a body that is not lines, each ended by a newline", _MALFORMED),
    "quota": Rejection("is one of too many; wait as long as Retry-After says", 429),
    "frozen": Rejection("comes to a log that is frozen and takes nothing more", _FORBIDDEN),
    "busy": Rejection("found too many others waiting; try again", 503),
    "unavailable": Rejection("found the log unable to write; try again later", 503),
}

TABLE: Mapping[str, Rejection] = {**RECORDS, **REQUESTS}
_TRANSIENT = frozenset({408, 429, 503})


class RejectedError(RefusedError):
    """Report a refusal of the table: `check` is its code, `rule` may name a broken format rule."""

    def __init__(self, message: str, *, check: str, rule: str = "") -> None:
        super().__init__(message, check=check)
        self.rule = rule


def reject(code: str, name: str, detail: str = "", *, rule: str = "") -> NoReturn:
    """Raise the refusal of this code; `name` says of what."""
    more = f": {detail}" if detail else ""
    raise RejectedError(
        f"log refuses {name} [{code}]: it {TABLE[code].words}{more}", check=code, rule=rule
    )


def is_transient(code: str) -> bool:
    """Tell whether the same request may be taken later."""
    known = TABLE.get(code)
    return known is not None and known.status in _TRANSIENT
