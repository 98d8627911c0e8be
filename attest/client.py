"""The light client: one run proof against one policy. Standard library and PyNaCl only.

Every check is named in `check.CHECKS`; the first that fails refuses the whole proof in one line.
What remains after all checks is no yes or no but a `Verdict`: who checked how much.
"""

import time
from pathlib import Path

from attest.artifact import check_artifact
from attest.check import hold
from attest.conflicts import check_conflicts
from attest.head import Head, check_quorum, open_head
from attest.inclusion import ProvenRecords, check_inclusion
from attest.judgement import Findings, judge
from attest.key_life import obey_key_events
from attest.lineage import Lineage, check_lineage
from attest.memory import Memory
from attest.omissions import check_omissions
from attest.proof import parse_proof
from attest.properties import check_properties
from attest.receipts import Receipts, check_receipts
from attest.statements import (
    Attempt,
    Audit,
    Conflict,
    ContractStatement,
    Final,
    Genesis,
    Intent,
    KeyEvent,
    Nonce,
    Property,
    Segment,
    Status,
    Step,
)
from attest.trust import Policy
from attest.verdict import Verdict

__all__ = ["verify_run"]

# What a run proof is made of. Other records of a log have no bearing on a verdict.
_KINDS = (
    ContractStatement,
    Genesis,
    Attempt,
    Step,
    Segment,
    Final,
    Intent,
    Nonce,
    Audit,
    Property,
    Conflict,
    KeyEvent,
    Status,
)


def verify_run(
    proof_bytes: bytes,
    policy: Policy,
    *,
    artifact: Path | None = None,
    history: Memory | None = None,
    now: int | None = None,
) -> Verdict:
    """Check a run proof and say what it is worth under a policy.

    Args:
        proof_bytes: the file's bytes.
        policy: whom the reader trusts, and what is required.
        artifact: directory of the exported files, or one of them, to compare.
        history: remembers the newest checkpoint per log; without it nothing is remembered.
        now: seconds since 1970; the machine's clock if None.

    Raises:
        FormatError: if the bytes are no proof in its one spelling.
        RefusedError: naming the check that failed.
        EquivocationError: if the log contradicts the remembered checkpoint.
        InputError: if the artifact or the memory cannot be read or written.
    """
    proof = parse_proof(proof_bytes)
    head = open_head(proof.checkpoint, policy)
    # Two heads signed by the log are evidence whether or not witnesses signed the second.
    if history is not None:
        history.check_head(head, policy.log.key)
    check_quorum(head, policy)
    status_head = _status_head(proof.status_checkpoint, policy)
    proven = check_inclusion(proof, head, status_head)
    doubt = "no memory of the log was given"
    if history is not None:
        doubt = history.check_history(proven, policy.log.key)
    return _judge_run(proven, policy, artifact, doubt, int(time.time()) if now is None else now)


def _judge_run(
    proven: ProvenRecords, policy: Policy, artifact: Path | None, history: str, now: int
) -> Verdict:
    proof = proven.proof
    for record in proof.records:
        hold(isinstance(record.statement, _KINDS), "relevance", f"{record.where} has no place here")
    life = obey_key_events(proof, policy)
    policy = life.policy
    lineage = check_lineage(proof, policy)
    conflicts = check_conflicts(proof, policy, lineage)
    receipts = check_receipts(proof, policy, lineage)
    properties = check_properties(proof, policy, lineage)
    omissions = check_omissions(proven, policy, lineage, now=now)
    uncounted = (*receipts.uncounted, *properties.uncounted, *conflicts, *life.uncounted)
    words = "" if artifact is None else _artifact_words(artifact, lineage, receipts)
    return judge(
        Findings(
            proven,
            lineage,
            receipts,
            properties,
            omissions,
            uncounted,
            history,
            artifact=words,
            key_events=life.obeyed,
        ),
        policy,
    )


def _status_head(note: bytes | None, policy: Policy) -> Head | None:
    if note is None:
        return None
    head = open_head(note, policy)
    check_quorum(head, policy)
    return head


def _artifact_words(artifact: Path, lineage: Lineage, receipts: Receipts) -> str:
    count = check_artifact(artifact, lineage.final)
    words = f"{count} {'file is' if count == 1 else 'files are'} as in the final record"
    exported = sorted(
        {
            reading.entry.operator
            for reading in receipts.audits
            if reading.audit.export == "pass" and reading.entry.operator != lineage.trainer
        }
    )
    if exported:
        return f"{words}, which {', '.join(exported)} recomputed from the final state"
    return f"{words}; that they are the final state's weights is the trainer's word"
