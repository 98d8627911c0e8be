"""What owners say of their keys in a log, put into a policy: ended keys, and new ones.

A key event is obeyed if the policy's owner of a key signed it, for the policy's log; others count
for nothing and are said to. Indices of the log decide, never clocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

from attest.check import hold
from attest.keys import keyid
from attest.proof import ProofRecord, RunProof
from attest.signers import Uncounted, check_signed
from attest.statements import KeyEvent
from attest.trust import Ending, KeyEntry, Policy

__all__ = ["KeyLife", "obey_key_events"]


@dataclass(frozen=True, slots=True)
class KeyLife:
    """Hold the policy as the log's key events leave it, how many were obeyed, and the others."""

    policy: Policy
    obeyed: int
    uncounted: tuple[Uncounted, ...]


def obey_key_events(proof: RunProof, policy: Policy) -> KeyLife:
    """Apply a proof's key events to a policy, in the order of the log.

    Raises:
        RefusedError: (checks `envelope signatures`, `one key, one role`) if an owner that the
            policy names signed one badly, or gave a key of the policy another role.
    """
    uncounted: list[Uncounted] = []
    obeyed = 0
    for record in proof.of_kind(KeyEvent):
        event = cast(KeyEvent, record.statement)
        if event.origin != policy.log.origin:
            uncounted.append(Uncounted(record, f"is for log {event.origin}"))
            continue
        owned = _owned(event, policy)
        if owned is None:
            uncounted.append(Uncounted(record))
            continue
        policy = replace(policy, keys=tuple(_after(record, event, policy, owned)))
        obeyed += 1
    return KeyLife(policy, obeyed, tuple(uncounted))


def _owned(event: KeyEvent, policy: Policy) -> KeyEntry | None:
    """Return the entry on whose owner's word the event rests, None if it rests on nobody's."""
    owner = bytes.fromhex(event.owner)
    for entry in policy.keys:
        # To endorse, owning some key of the role is enough: the new one is the same operator's.
        named = event.ended is None or entry.public.hex() == event.ended
        if named and entry.owner == owner and entry.role is event.role:
            return entry
    return None


def _after(
    record: ProofRecord, event: KeyEvent, policy: Policy, owned: KeyEntry
) -> Iterable[KeyEntry]:
    """Return the policy's entries after an event of an owner whom it names."""
    newcomer = None if event.newcomer is None else bytes.fromhex(event.newcomer)
    check_signed(record, {keyid(public): public for public in event.signers})
    ending = Ending(event.index, record.index)
    for entry in policy.keys:
        ends = entry.public.hex() == event.ended
        yield replace(entry, endings=(*entry.endings, ending)) if ends else entry
    if newcomer is None:
        return
    known = next((entry for entry in policy.keys if entry.public == newcomer), None)
    if known is None:
        hold(
            newcomer not in policy.public_keys(),
            "one key, one role",
            f"{record.where} gives key {newcomer.hex()} a second role",
        )
        # Not before its event: of many keys the one with the best sample could be chosen later.
        start = max(event.index, record.index + 1)
        yield KeyEntry(owned.role, newcomer, owned.operator, from_index=start, owner=owned.owner)
        return
    same = (known.role, known.operator) == (owned.role, owned.operator)
    hold(same, "one key, one role", f"{record.where} gives key {newcomer.hex()} a second role")
