"""Canary runs for whoever was not there: the maker's answer, and what receipts show beside it.

The maker of a run plants faults at secret steps and commits to them, before the final record, as
the nonce of an intent in its log. The answer file opens that commitment, so it needs no signature:
nobody can have chosen other steps after a receipt was there. With the run's proof anybody sees who
passed a step of it. That the steps are faulty is shown by executing one of them again, by anybody;
until then it is the maker's word.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from attest import canonical, merkle
from attest.check import hold
from attest.errors import FormatError, RefusedError
from attest.head import Head, check_quorum, open_head
from attest.inclusion import check_inclusion
from attest.lineage import Lineage, check_lineage
from attest.proof import RunProof, parse_proof
from attest.sample import commitment, sample_steps
from attest.signers import Uncounted, named_auditor
from attest.statements import Audit, Intent
from attest.trust import Policy

__all__ = ["CanaryAnswer", "SeenReceipt", "Tried", "canary_nonce", "check_canary", "try_receipt"]

Finding = Literal["found", "not hit", "lazy", "copied", "not known"]
MAX_ANSWER_BYTES = 1 << 20
_KIND = "canary answer"
_SALT_BYTES = _RUN_BYTES = 32
_EMPTY = merkle.tree_root([]).hex()


def canary_nonce(run: str, salt: bytes, faults: Sequence[int]) -> bytes:
    """Return what the maker's intent commits to: 32 bytes over run (hex), salt and steps.

    SHA-256 over `"anh v1 canary" || 0x00 || run || salt || steps`, each step 8 bytes, big endian.
    """
    told = b"".join(step.to_bytes(8, "big") for step in faults)
    return hashlib.sha256(b"anh v1 canary\x00" + bytes.fromhex(run) + salt + told).digest()


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """What the maker of a canary run keeps to himself until he has tried the auditors."""

    run: str
    salt: bytes
    faults: tuple[int, ...]

    @property
    def nonce(self) -> bytes:
        """Return what the maker's intent commits to."""
        return canary_nonce(self.run, self.salt, self.faults)

    def committed(self, intents: Iterable[Intent]) -> bool:
        """Say whether one of these intents commits to this answer."""
        sealed = commitment(self.nonce).hex()
        return any(intent.commitment == sealed for intent in intents)

    def to_bytes(self) -> bytes:
        """Return the answer file: canonical JSON."""
        return canonical.encode(
            {
                "kind": _KIND,
                "version": 1,
                "run": self.run,
                "salt": self.salt.hex(),
                "faults": self.faults,
            }
        )

    def formed(self) -> bool:
        """Say whether the parts are what is hashed: a step named twice would count as two."""
        faults = self.faults
        rising = all(a < b for a, b in zip(faults, faults[1:], strict=False))
        numbers = all(type(step) is int and step >= 1 for step in faults)
        sizes = (len(bytes.fromhex(self.run)), len(self.salt)) == (_RUN_BYTES, _SALT_BYTES)
        return bool(faults) and numbers and rising and sizes

    @classmethod
    def from_bytes(cls, data: bytes) -> "CanaryAnswer":
        """Read an answer file.

        Raises:
            FormatError: for any other bytes.
        """
        told = canonical.decode(data, max_bytes=MAX_ANSWER_BYTES)
        wrong = FormatError("is no answer of a canary run", code="canary")
        try:
            fields = cast("dict[str, Any]", told)
            answer = cls(fields["run"], bytes.fromhex(fields["salt"]), tuple(fields["faults"]))
            whole = answer.to_bytes() == data and answer.formed()
        except (KeyError, TypeError, ValueError, AttributeError, FormatError):
            raise wrong from None
        if not whole:
            raise wrong
        return answer


@dataclass(frozen=True, slots=True)
class SeenReceipt:
    """An audit in the log: at which index, with which record, by which key."""

    index: int
    record: str
    keyid: str
    audit: Audit


@dataclass(frozen=True, slots=True)
class Tried:
    """What a receipt shows of its auditor.

    `found`: the faults in its sample are among what it refutes. `not hit`: its sample holds none.
    `lazy`: it passes a step that cannot pass, or cannot show what it computed. `copied`: its
    gradients are another auditor's. `not known`: its steps were chosen and are not shown.
    """

    index: int
    operator: str
    hits: tuple[int, ...]
    finding: Finding
    words: str


def try_receipt(
    receipt: SeenReceipt,
    receipts: Sequence[SeenReceipt],
    hits: tuple[int, ...] | None,
    *,
    falsely_opened: str = "",
) -> Tried:
    """Judge a receipt among all of them; `hits` are the faulty steps in its sample, if known.

    `falsely_opened` says what is wrong with the gradients that the auditor showed as his own.
    """
    audit = receipt.audit

    def tried(finding: Finding, words: str) -> Tried:
        return Tried(receipt.index, audit.auditor, hits or (), finding, words)

    if first := _copied_from(receipt, receipts):
        words = f"its own gradients are those of {first.audit.auditor} (index {first.index})"
        return tried("copied", words)
    if audit.steps and audit.gradient_roots == _EMPTY:
        return tried("lazy", "it computed no gradient of its own")
    if falsely_opened:
        return tried("lazy", falsely_opened)
    if hits is None:
        return tried("not known", "its steps were chosen by hand")
    if not hits:
        return tried("not hit", "its sample holds no faulty step")
    # Each faulty step in the sample is one that cannot have passed, whatever the auditor runs on.
    most = audit.steps + audit.counts.withheld - len(hits)
    if audit.counts.pass_ > most:
        steps = ", ".join(f"{step:,}" for step in hits)
        words = f"it passed {audit.counts.pass_:,} steps of a sample that holds the faulty {steps}"
        return tried("lazy", words)
    return tried("found", f"{audit.counts.refuted:,} steps refuted")


def drawn_faults(
    audit: Audit, answer: CanaryAnswer, total: int, added: Iterable[int] = ()
) -> tuple[int, ...] | None:
    """Return the faulty steps that a receipt's sample of `total` holds; None where it was chosen.

    `added` are the steps beside drawn ones and the last.
    """
    if audit.sample == "chosen":
        return None
    nonces = {source.keyid: bytes.fromhex(source.nonce) for source in audit.sources}
    run, final = bytes.fromhex(audit.run), bytes.fromhex(audit.final)
    sample = {*sample_steps(run, final, nonces, total, audit.k), total, *added}
    return tuple(step for step in answer.faults if step in sample)


def check_canary(answer: CanaryAnswer, proof_bytes: bytes, policy: Policy) -> tuple[Tried, ...]:
    """Judge the receipts in a canary run's proof by keys that a policy names as auditors'.

    The proof is checked as the light client checks one, but for what audits say: an auditor who
    computes refutes this run.

    Raises:
        FormatError, RefusedError: as `attest.client.verify_run`; RefusedError (check `canary`)
            where the answer is of another run, or was not committed to before the final record.
    """
    proof = parse_proof(proof_bytes)
    check_inclusion(proof, _head(proof.checkpoint, policy), _status_head(proof, policy))
    lineage = check_lineage(proof, policy)
    if answer.run != lineage.run:
        raise RefusedError(f"canary: the answer is of run {answer.run[:16]}", check="canary")
    before = [
        cast(Intent, record.statement)
        for record in proof.of_kind(Intent)
        if record.index < lineage.final_record.index
    ]
    if not answer.committed(before):
        raise RefusedError(
            "canary: the answer was not committed to before the final record: whoever shows it may "
            "have made it up",
            check="canary",
        )
    receipts = _named_receipts(proof, policy, lineage)
    total = lineage.contract.steps
    return tuple(
        try_receipt(receipt, receipts, drawn_faults(receipt.audit, answer, total))
        for receipt in receipts
    )


def _named_receipts(proof: RunProof, policy: Policy, lineage: Lineage) -> list[SeenReceipt]:
    """Return the receipts by keys that the policy names; of others nobody knows whose they are."""
    found: list[SeenReceipt] = []
    for record in proof.of_kind(Audit):
        audit = cast(Audit, record.statement)
        if isinstance(named_auditor(policy, record, audit.auditor), Uncounted):
            continue
        same = (audit.run, audit.final) == (lineage.run, lineage.final_record.hash)
        hold(same, "audit", f"{record.where} is of another run or final record")
        found.append(SeenReceipt(record.index, record.hash, record.signer, audit))
    return found


def _head(note: bytes, policy: Policy) -> Head:
    head = open_head(note, policy)
    check_quorum(head, policy)
    return head


def _status_head(proof: RunProof, policy: Policy) -> Head | None:
    return None if proof.status_checkpoint is None else _head(proof.status_checkpoint, policy)


def _copied_from(receipt: SeenReceipt, receipts: Sequence[SeenReceipt]) -> SeenReceipt | None:
    """Return the first receipt under whose salts the same gradients lie, if it is another key's."""
    if receipt.audit.gradient_roots == _EMPTY:
        return None
    roots = receipt.audit.gradient_roots
    same = (other for other in receipts if other.audit.gradient_roots == roots)
    first = min(same, key=lambda other: other.index)
    return None if first.keyid == receipt.keyid else first
