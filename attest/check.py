"""The checks of a run proof by name: every refusal says which one failed, in one line."""

from typing import NoReturn

from attest.errors import RefusedError

__all__ = ["CHECKS", "hold", "refuse"]

CHECKS = {
    "format": "canonical bytes, known fields, records sorted by index and each only once",
    "checkpoint": "text of the policy's origin, lines only by keys the policy names",
    "checkpoint signature": "the log's signature over the checkpoint",
    "witness quorum": "enough witness operators cosigned, and no named witness's line is bad",
    "inclusion": "the records are leaves of the checkpoint's tree at their indices",
    "relevance": "every record in the proof is about this run and is used",
    "envelope signatures": "exactly the right keys for the record's role signed it",
    "key range": "the policy lets the key sign at the record's log index",
    "one key, one role": "no key of the policy serves the run in another role",
    "operators": "names in signed statements are those the policy gives their keys",
    "accepted": "the contract and the run are among those the policy accepts",
    "contract": "genesis names the contract in the proof",
    "numerics": "the contract's numerics class and tolerances are within the policy's",
    "attempts": "attempts are consecutive, of this run, from genesis or a proven record",
    "order": "records lie in the log in the order the protocol demands",
    "final": "the final record is of this run and of all the contract's steps",
    "one final": "the run has one final record",
    "conflict": "no evidence that the run key or its workers signed two stories",
    "audit": "every audit is of this final record, adds up, and refutes nothing",
    "sources": "sample sources are the policy's, committed before the final, revealed right",
    "sample": "the steps an audit counts are as many as the sample has",
    "property": "a property is one of the contract's, its counts give its verdict",
    "status": "the monitor's view is of this log and contract and covers the proof",
    "omissions": "what the monitor lists of this run is in the proof, unless the proof is full",
    "artifact": "exported files are exactly those the final record names",
    "history": "the checkpoint extends the one remembered",
}


def refuse(check: str, message: str) -> NoReturn:
    """Raise the refusal of a named check."""
    raise RefusedError(f"{check}: {message}", check=check)


def hold(holds: object, check: str, message: str) -> None:
    """Refuse unless a condition holds."""
    if not holds:
        refuse(check, message)
