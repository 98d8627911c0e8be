"""Evidence that a log signed two histories: one file that anyone with the log's key can check."""

import base64
import binascii
from typing import cast

from attest import canonical
from attest.check import hold
from attest.checkpoint import Checkpoint, open_checkpoint
from attest.errors import FormatError
from attest.keys import VerifierKey
from attest.multiproof import fold
from attest.proof import MAX_PROOF_BYTES, RunProof, encode_proof, parse_proof

__all__ = ["check_evidence", "encode_evidence"]

_KIND = "log equivocation"
_MAX_BYTES = 2 * MAX_PROOF_BYTES


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
