"""The register at some size, stored beside the entries: a restart reads records only from there on.

    <SHA-256 of the rest, hex> 0A
    {"attempts", "contracts", "lives", "publics", "roles", "root", "runs", "size"}

It follows from the entries and binds no one: a restart hashes all of them, holds the root they give
to the one in here, and `anh log fsck` derives it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from attest import canonical
from attest.errors import FormatError, RefusedError
from attest.keys import Role, keyid
from attest.log.register import AttemptState, KeyState, Register, RunState
from attest.log.store import Committed

# Records between two snapshots: a restart reads so many in seconds.
SNAPSHOT_EVERY = 65_536
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hold a register and the size and root of the entries that it follows from."""

    at: Committed
    register: Register

    def to_bytes(self) -> bytes:
        """Write the snapshot."""
        register = self.register
        value: dict[str, canonical.JSON] = {
            "attempts": {name: _attempt(line) for name, line in register.attempts.items()},
            "contracts": tuple(sorted(register.contracts)),
            "lives": {name: [k.owner, k.start, k.end] for name, k in register.lives.items()},
            "publics": tuple(sorted(public.hex() for public in register.publics.values())),
            "roles": {name: role.value for name, role in register.roles.items()},
            "root": self.at.root.hex(),
            "runs": {name: _run(run) for name, run in register.runs.items()},
            "size": self.at.size,
        }
        data = canonical.encode(value)
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Read a snapshot.

        Raises:
            RefusedError: (check `snapshot`) if a bit of it has changed.
        """
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise damaged_snapshot("its bytes were altered")
        try:
            value = cast(
                "dict[str, Any]", canonical.decode(body, max_bytes=_MAX_BYTES, max_depth=4)
            )
            return cls(Committed(value["size"], bytes.fromhex(value["root"])), _register(value))
        except (FormatError, KeyError, TypeError, ValueError) as error:
            raise damaged_snapshot(str(error)) from None


def damaged_snapshot(why: str) -> RefusedError:
    """Return the refusal of a snapshot that is not what the entries give."""
    return RefusedError(f"log snapshot is damaged: {why}; restore the store", check="snapshot")


def _attempt(line: AttemptState) -> canonical.JSON:
    # Workers in order of their ranks: the first of them signs segments.
    workers = tuple(public.hex() for public in line.workers.values())
    numbers = (line.start, line.step, line.segment)
    return [line.run, line.resumed_from, workers, numbers, line.tail, line.segment_tail]


def _run(run: RunState) -> canonical.JSON:
    return [run.contract, run.public.hex(), run.attempts, run.reached, run.final]


def _register(value: Mapping[str, Any]) -> Register:
    register = Register()
    register.roles = {name: Role(role) for name, role in value["roles"].items()}
    register.publics = _by_keyid(value["publics"])
    register.contracts = dict.fromkeys(value["contracts"])
    register.lives = {name: KeyState(*life) for name, life in value["lives"].items()}
    for name, (contract, public, attempts, reached, final) in value["runs"].items():
        register.runs[name] = RunState(contract, bytes.fromhex(public), attempts, reached, final)
    for name, (run, origin, workers, numbers, tail, segment_tail) in value["attempts"].items():
        keys, (start, step, segment) = _by_keyid(workers), numbers
        register.attempts[name] = AttemptState(
            run, origin, keys, start, step, segment, tail, segment_tail
        )
    return register


def _by_keyid(publics: list[str]) -> dict[str, bytes]:
    return {keyid(public): public for public in map(bytes.fromhex, publics)}
