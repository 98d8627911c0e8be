"""Who plays in the runs that the tests tell: names, keys, operators, and what readers trust."""

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

from attest.keys import ALG_COSIGNATURE, ALG_ED25519, PrivateKey, Role, VerifierKey
from attest.level import Level
from attest.trust import (
    KeyEntry,
    LogEntry,
    NumericsDemand,
    Policy,
    PropertyDemand,
    Requirement,
    WitnessEntry,
)

ORIGIN = "log.example/runs"
NOW = 1_790_000_000
WEIGHTS = b"the exported weights"
ROLES = {
    "owner": Role.AUTHOR,
    "lab": Role.RUN,
    "acme": Role.AUDITOR,
    "globex": Role.AUDITOR,
    "lab-audit": Role.AUDITOR,
    "watch": Role.MONITOR,
    "court": Role.REPORTER,
}
OPERATORS = {"lab-audit": "lab"}


def digest(text: str) -> str:
    """Return 64 hex digits that stand for something named."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def key(name: str) -> PrivateKey:
    """Return the key of a name, the same in every run of the tests."""
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def nonce_of(name: str) -> bytes:
    return hashlib.sha256(f"nonce of {name}".encode()).digest()


def vkey(name: str, algorithm: int = ALG_ED25519) -> VerifierKey:
    label = ORIGIN if name == "log" else f"{name}.example"
    return VerifierKey(label, algorithm, key(name).public)


def policy(**changes: Any) -> Policy:
    """Return a foreign reader's policy; `without` drops keys by name."""
    dropped = changes.pop("without", ())
    base = Policy(
        log=LogEntry(ORIGIN, vkey("log"), "logco"),
        witnesses=tuple(
            WitnessEntry(vkey(name, ALG_COSIGNATURE), name) for name in ("wit-a", "wit-b")
        ),
        quorum=2,
        keys=tuple(
            KeyEntry(role, key(name).public, OPERATORS.get(name, name))
            for name, role in ROLES.items()
            if name not in dropped
        ),
        numerics=NumericsDemand(classes=("f32",), min_k=10, bad_fraction=0.01),
        require=Requirement(Level.SAMPLED, (PropertyDemand("accuracy", 1),)),
    )
    return replace(base, **changes)


def own_policy(**changes: Any) -> Policy:
    """Return the policy of a run about itself: everyone is the trainer."""
    base = policy()
    return replace(
        base,
        log=replace(base.log, operator="lab"),
        witnesses=tuple(replace(w, operator="lab") for w in base.witnesses),
        quorum=1,
        keys=tuple(replace(entry, operator="lab") for entry in base.keys),
        require=Requirement(),
        **changes,
    )
