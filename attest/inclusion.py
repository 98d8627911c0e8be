"""A proof opened: its records are entries of the log that the policy names."""

from dataclasses import dataclass

from attest.check import hold
from attest.equivocation import encode_evidence
from attest.errors import EquivocationError
from attest.head import Head
from attest.multiproof import Fold, fold
from attest.proof import RunProof

__all__ = ["ProvenRecords", "check_inclusion"]


@dataclass(frozen=True, slots=True)
class ProvenRecords:
    """Hold a proof whose records are leaves under its head.

    `prefixes` of the fold are the roots of the log at the proof's sizes; `status_head` is the
    cosigned checkpoint at the status's size, if the proof holds one.
    """

    proof: RunProof
    head: Head
    status_head: Head | None
    fold: Fold


def check_inclusion(proof: RunProof, head: Head, status_head: Head | None) -> ProvenRecords:
    """Check that the records' leaves and the nodes hash to the head's root.

    Raises:
        RefusedError: (check `inclusion`).
        FormatError: for an index or size outside the tree.
        EquivocationError: if the log signed a status head that is no prefix of the head.
    """
    leaves = {record.index: record.leaf for record in proof.records}
    size = head.checkpoint.size
    hold(size > 0, "inclusion", "the checkpoint is of an empty log")
    folded = fold(size, leaves, proof.sizes, proof.nodes)
    hold(
        folded.root == head.checkpoint.root,
        "inclusion",
        "records and nodes do not hash to the checkpoint's root",
    )
    if status_head is not None:
        _check_one_history(proof, head, status_head, folded)
    return ProvenRecords(proof, head, status_head, folded)


def _check_one_history(proof: RunProof, head: Head, status_head: Head, folded: Fold) -> None:
    size = status_head.checkpoint.size
    root = folded.prefixes.get(size)
    if root is not None and root != status_head.checkpoint.root:
        raise EquivocationError(
            f"log {head.checkpoint.origin} signed two histories, at sizes {size} and "
            f"{head.checkpoint.size}; the proof holds both",
            evidence=encode_evidence(status_head.note, head.note, proof),
        )
