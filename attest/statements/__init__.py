"""Statements: frozen records of everything that is signed, and their bytes."""

from attest.statements.auditing import (
    Audit,
    Counts,
    Intent,
    Nonce,
    Property,
    Source,
    Threshold,
    Worst,
)
from attest.statements.encoding import (
    STATEMENT_TYPE,
    Statement,
    decode_statement,
    encode_statement,
    predicate_type,
)
from attest.statements.monitoring import Conflict, Held, KeyEvent, RunEntries, Status
from attest.statements.row import Row, Scalars, cut_row
from attest.statements.subject import LogHead, Subject
from attest.statements.training import (
    Attempt,
    ContractStatement,
    ExportedFile,
    Final,
    Genesis,
    Line,
    Mesh,
    Segment,
    Step,
)

__all__ = [
    "STATEMENT_TYPE",
    "Attempt",
    "Audit",
    "Conflict",
    "ContractStatement",
    "Counts",
    "ExportedFile",
    "Final",
    "Genesis",
    "Held",
    "Intent",
    "KeyEvent",
    "Line",
    "LogHead",
    "Mesh",
    "Nonce",
    "Property",
    "Row",
    "RunEntries",
    "Scalars",
    "Segment",
    "Source",
    "Statement",
    "Status",
    "Step",
    "Subject",
    "Threshold",
    "Worst",
    "cut_row",
    "decode_statement",
    "encode_statement",
    "predicate_type",
]
