"""Evidence of two stories, in one file that anyone can check.

Either a log signed two histories, or the first worker of an attempt signed rows and segments that
cannot all be true. The first is checked with the log's key, the second with the run's id alone.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import cast

from attest import canonical
from attest.check import hold, refuse
from attest.checkpoint import Checkpoint, open_checkpoint
from attest.envelope import Envelope, verify_signatures
from attest.errors import FormatError
from attest.keys import VerifierKey, keyid
from attest.multiproof import fold
from attest.proof import MAX_PROOF_BYTES, RunProof, encode_proof, parse_proof
from attest.segment import RowMark, contradiction, mark_of
from attest.statements import Attempt, Genesis, Segment, Step, decode_statement

__all__ = [
    "check_evidence",
    "check_row_evidence",
    "check_worker_signed",
    "encode_evidence",
    "encode_row_evidence",
    "first_worker",
    "row_equivocation",
]

_KIND = "log equivocation"
_ROWS_KIND = "row equivocation"
_MAX_BYTES = 2 * MAX_PROOF_BYTES
# Room for the rows of a segment of 50,000 steps at least: no fewer show that its root is of others.
_MAX_ROWS_BYTES = 1 << 28


def encode_evidence(first: bytes, second: bytes, proof: RunProof | None) -> bytes:
    """Write two signed heads, and the run proof under the second that shows the first's size.

    Heads of one size need no proof.
    """
    shown = b"" if proof is None else encode_proof(proof)
    return canonical.encode(
        {
            "first": base64.b64encode(first).decode(),
            "kind": _KIND,
            "proof": base64.b64encode(shown).decode(),
            "second": base64.b64encode(second).decode(),
            "version": 1,
        }
    )


def check_evidence(data: bytes, log: VerifierKey) -> tuple[Checkpoint, Checkpoint]:
    """Return the two heads, both signed by the log, of which the first is no prefix of the second.

    Raises:
        FormatError: if the bytes are no evidence file.
        RefusedError: if the log did not sign both, or they do not contradict each other.
    """
    value = canonical.decode(data, max_bytes=_MAX_BYTES)
    names = {"first", "kind", "proof", "second", "version"}
    if not isinstance(value, dict) or value.keys() != names or value["kind"] != _KIND:
        raise FormatError("not a file of equivocation evidence", code="evidence")
    first = open_checkpoint(_unbase64(value["first"]), log)
    second = open_checkpoint(_unbase64(value["second"]), log)
    if first.size == second.size:
        hold(first.root != second.root, "equivocation", "both heads are the same")
        return first, second
    proof = parse_proof(_unbase64(value["proof"]))
    leaves = {record.index: record.leaf for record in proof.records}
    folded = fold(second.size, leaves, proof.sizes, proof.nodes)
    hold(folded.root == second.root, "equivocation", "the proof is not of the second head")
    prefix = folded.prefixes.get(first.size)
    differs = prefix is not None and prefix != first.root
    hold(differs, "equivocation", "the first head is not shown to be no prefix of the second")
    return first, second


def _unbase64(text: object) -> bytes:
    try:
        return base64.b64decode(cast(str, text), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormatError("evidence: broken base64", code="base64") from None


def encode_row_evidence(genesis: Envelope, attempt: Envelope, records: Sequence[Envelope]) -> bytes:
    """Write steps and segments of one attempt that cannot all be true, and whose key signed them.

    Genesis names the run key, the run key signed the attempt, and the attempt names the worker.
    Signatures of other hosts are left out.
    """
    begun = decode_statement(attempt.payload)
    first = keyid(bytes.fromhex(begun.worker_keys[0])) if isinstance(begun, Attempt) else ""
    own = [
        Envelope(r.payload, tuple(s for s in r.signatures if s.keyid == first) or r.signatures)
        for r in records
    ]
    return canonical.encode(
        {
            "attempt": base64.b64encode(attempt.to_bytes()).decode(),
            "genesis": base64.b64encode(genesis.to_bytes()).decode(),
            "kind": _ROWS_KIND,
            "records": [base64.b64encode(record.to_bytes()).decode() for record in own],
            "version": 1,
        }
    )


def check_row_evidence(data: bytes, run: str) -> str:
    """Return in words how the first worker of an attempt of `run` (id, hex) told two stories.

    Raises:
        FormatError: if the bytes are no such evidence file.
        RefusedError: if the keys did not sign it, or the records can all be true.
    """
    value = canonical.decode(data, max_bytes=_MAX_ROWS_BYTES)
    names = {"attempt", "genesis", "kind", "records", "version"}
    if not isinstance(value, dict) or value.keys() != names or value["kind"] != _ROWS_KIND:
        raise FormatError("not a file of row equivocation evidence", code="evidence")
    listed = value["records"]
    if not isinstance(listed, list):
        raise FormatError("evidence: records is no list", code="type")
    genesis, attempt, *records = (
        Envelope.from_bytes(_unbase64(text))
        for text in (value["genesis"], value["attempt"], *listed)
    )
    return row_equivocation(genesis, attempt, records, run)


def row_equivocation(
    genesis: Envelope, attempt: Envelope, records: Sequence[Envelope], run: str
) -> str:
    """Return in words how records of an attempt of `run` (id, hex) contradict each other.

    Raises:
        FormatError: if the envelopes are no genesis, attempt, steps and segments.
        RefusedError: if the keys did not sign them, or they can all be true.
    """
    worker = first_worker(genesis, attempt, run)
    rows: dict[int, RowMark] = {}
    segments: dict[bytes, Segment] = {}
    for record in records:
        check_worker_signed(record, worker)
        statement = decode_statement(record.payload)
        of = isinstance(statement, Step | Segment) and statement.attempt
        hold(of == attempt.record_hash().hex(), "equivocation", "a record is of another attempt")
        if isinstance(statement, Segment):
            segments[record.record_hash()] = statement
            continue
        mark = mark_of(record)
        if rows.setdefault(mark.step, mark) != mark:
            return f"two rows are signed for step {mark.step}"
    found = contradiction(rows, list(segments.values()))
    if found is None:
        refuse("equivocation", "the records can all be true")
    return found.words


def first_worker(genesis: Envelope, attempt: Envelope, run: str) -> bytes:
    """Return the key that an attempt of the run (id, hex) names first.

    Raises:
        FormatError: if the envelopes are no genesis and no attempt.
        RefusedError: if they are of another run, or its key did not sign the attempt.
    """
    hold(genesis.record_hash().hex() == run, "equivocation", "the evidence is of another run")
    opening, begun = decode_statement(genesis.payload), decode_statement(attempt.payload)
    if not isinstance(opening, Genesis) or not isinstance(begun, Attempt):
        raise FormatError("evidence: no genesis or no attempt", code="evidence")
    key = bytes.fromhex(opening.run_key)
    verify_signatures(attempt, {keyid(key): key})
    hold(begun.run == run, "equivocation", "the attempt is of another run")
    return bytes.fromhex(begun.worker_keys[0])


def check_worker_signed(record: Envelope, worker: bytes) -> None:
    """Check the first worker's signature alone: other hosts may have signed a step beside it.

    Raises:
        RefusedError: if it is missing or does not verify.
    """
    own = tuple(s for s in record.signatures if s.keyid == keyid(worker))
    hold(own, "equivocation", "a record is not signed by the attempt's first worker")
    verify_signatures(Envelope(record.payload, own), {keyid(worker): worker})
