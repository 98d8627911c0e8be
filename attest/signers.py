"""Who signed a record of a proof: exactly the right keys for its role, or a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass

from attest.check import hold, refuse
from attest.envelope import verify_signatures
from attest.errors import RefusedError
from attest.keys import Role
from attest.proof import ProofRecord
from attest.trust import KeyEntry, Policy

__all__ = [
    "Uncounted",
    "check_operator",
    "check_signed",
    "covering_key",
    "named_auditor",
    "signed_in_role",
    "struck_auditor",
]


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Hold a record that counts for nothing, and why; "" where the policy names no such key."""

    record: ProofRecord
    why: str = ""


def check_signed(record: ProofRecord, keys: Mapping[str, bytes]) -> None:
    """Check that exactly these keys (keyid -> public key) signed the record.

    Raises:
        RefusedError: (check `envelope signatures`).
    """
    try:
        verify_signatures(record.envelope, keys)
    except RefusedError as error:
        refuse("envelope signatures", f"{record.where}: {error}")


def signed_in_role(policy: Policy, record: ProofRecord, role: Role) -> KeyEntry:
    """Check that one key, which the policy names in this role, signed; return its entry."""
    entry = covering_key(policy, record, record.signer, role)
    check_signed(record, {entry.keyid: entry.public})
    return entry


def covering_key(policy: Policy, record: ProofRecord, keyid: str, role: Role) -> KeyEntry:
    """Return the policy's entry of a key in a role, at the record's index."""
    entry = policy.find(keyid, role)
    if entry is None:
        refuse(
            "envelope signatures",
            f"{record.where} is signed by key {keyid}, no {role.value} key of the policy",
        )
    hold(entry.covers(record.index), "key range", f"{record.where}: key {keyid} is not valid there")
    return entry


def named_auditor(policy: Policy, record: ProofRecord, claimed: str) -> KeyEntry | Uncounted:
    """Check an auditor's record that names its operator; first of all, whether it counts.

    A log serves many readers, and a status lists every auditor's records: those by auditors that
    this policy does not know at the record's index, or knows under another name, may be in a proof,
    state anything, count for nothing, and are said to.
    """
    entry = policy.find(record.signer, Role.AUDITOR)
    if entry is None or not entry.covers(record.index):
        ended = entry is not None and any(e.index <= record.index for e in entry.endings)
        return Uncounted(record, "is signed by a key that its owner ended before" if ended else "")
    check_signed(record, {entry.keyid: entry.public})
    if claimed != entry.operator:
        return Uncounted(record, f"says {claimed}, the policy gives its key to {entry.operator}")
    return entry


def struck_auditor(policy: Policy, record: ProofRecord, claimed: str) -> KeyEntry | None:
    """Return whose auditor's record this is if its key was ended only after it had been logged.

    For a run such a record counts no more; what it says against the run still does.
    """
    entry = policy.find(record.signer, Role.AUDITOR)
    if entry is None or entry.covers(record.index) or not entry.accuses(record.index):
        return None
    check_signed(record, {entry.keyid: entry.public})
    return entry if claimed == entry.operator else None


def check_operator(record: ProofRecord, claimed: str, entry: KeyEntry) -> None:
    """Check that the name a statement gives its signer is the policy's name for the key."""
    hold(
        claimed == entry.operator,
        "operators",
        f"{record.where} says {claimed}, the policy gives its key to {entry.operator}",
    )
