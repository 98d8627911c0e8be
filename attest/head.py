"""The log head of a proof: signed by the policy's log, cosigned by its witnesses."""

from collections.abc import Mapping
from dataclasses import dataclass

from attest.check import hold, refuse
from attest.checkpoint import Checkpoint
from attest.cosignature import open_cosigned
from attest.errors import RefusedError
from attest.note import KeyName, Note, UnknownLines
from attest.trust import Policy

__all__ = ["Head", "check_quorum", "open_head"]

# What the note reader calls its refusals, as checks of a run proof.
_CHECKS = {
    "cosignature": "witness quorum",
    "origin": "checkpoint",
    "unknown signature": "checkpoint",
}


# Refusals that a proof of another run meets under an honest policy.
_FOREIGN = ("origin", "unknown signature")


@dataclass(frozen=True, slots=True)
class Head:
    """Hold a log's signed head, and when each operator of a named witness first cosigned it."""

    note: bytes
    checkpoint: Checkpoint
    times: Mapping[str, int]

    def witnesses(self, *, other_than: str) -> tuple[str, ...]:
        """Return the cosigning operators but one, by name."""
        return tuple(sorted(self.times.keys() - {other_than}))

    def time(self, *, other_than: str) -> int | None:
        """Return the witness time: the lower median over the cosigning operators but one.

        No minority of them moves it out of the range of the others. Seconds since 1970.
        """
        times = sorted(t for operator, t in self.times.items() if operator != other_than)
        return times[(len(times) - 1) // 2] if times else None


def open_head(note: bytes, policy: Policy) -> Head:
    """Check the log's signature and every named witness's line; refuse all other lines.

    Raises:
        FormatError: if the bytes are no checkpoint.
        RefusedError: (checks `checkpoint`, `checkpoint signature`, `witness quorum`).
    """
    operators = {witness.key: witness.operator for witness in policy.witnesses}
    try:
        opened = open_cosigned(note, policy.log.key, tuple(operators), UnknownLines.REFUSE)
    except RefusedError as error:
        foreign = _foreign_log(note, policy) if error.check in _FOREIGN else None
        refuse(_CHECKS.get(error.check, "checkpoint signature"), foreign or str(error))
    times: dict[str, int] = {}
    # Two keys of one operator are one voice, which speaks when it first spoke.
    for cosignature in sorted(opened.cosignatures, key=lambda c: c.time):
        times.setdefault(operators[cosignature.witness], cosignature.time)
    return Head(note, opened.checkpoint, times)


def _foreign_log(note: bytes, policy: Policy) -> str | None:
    """Return the words for a checkpoint of a log that the policy does not name, or None."""
    opened = Note.from_bytes(note)
    origin, log = opened.text.partition("\n")[0], policy.log.key
    if origin == log.name and KeyName.of(log) in {line.signer for line in opened.signatures}:
        return None
    key = " with another key" if origin == log.name else f", {log.name[:160]}"
    return (
        f"the policy does not name this log, {origin[:160]} (it names one{key}), so it is probably "
        "for another run; use the policy of this run, or make yours from it: anh policy new FILE "
        "--like D/policy.toml"
    )


def check_quorum(head: Head, policy: Policy) -> None:
    """Check that enough witness operators cosigned.

    Raises:
        RefusedError: (check `witness quorum`).
    """
    gap = policy.quorum_gap(head.times)
    hold(not gap, "witness quorum", gap)
