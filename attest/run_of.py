"""Which run a record is of: what monitors, proofs and indices of a log agree on."""

from attest.envelope import Envelope
from attest.errors import FormatError
from attest.statements import (
    Attempt,
    Audit,
    Final,
    Genesis,
    Intent,
    Property,
    Segment,
    Step,
    decode_statement,
)


def run_of(envelope: Envelope) -> str | None:
    """Return the run (its id, 64 hex digits) that a record is of, None if it is of none."""
    try:
        statement = decode_statement(envelope.payload)
    except FormatError:
        return None  # a reporter may show anything; what is no statement is of no run
    match statement:
        case Genesis():
            return envelope.record_hash().hex()
        case Step(row=row):
            return row.run
        case Attempt() | Segment() | Final() | Audit() | Property():
            return statement.run
        case Intent(about="run", target=target):
            return target
        case _:
            return None
