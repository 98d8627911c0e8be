"""The contract: what a run promised to compute, as one canonical JSON object.

Its SHA-256 is the contract id. Programs, tables, rules and data are named by digest.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, cast

from attest import canonical
from attest.envelope import MAX_ENVELOPE_BYTES
from attest.errors import FormatError, UnsupportedError
from attest.schema import (
    TEXT,
    Count,
    Hex64,
    Ordinal,
    Positive,
    Text,
    built,
    increasing,
    integer,
    listed,
    one_of,
    optional,
)

VERSION = 1


@dataclass(frozen=True, slots=True)
class Programs:
    """Name the contract's five programs by id."""

    init: Hex64
    gradient: Hex64
    scalars: Hex64
    update: Hex64
    evaluate: Hex64


@dataclass(frozen=True, slots=True)
class Holdout:
    """Name the evaluation examples: RFC 6962 root and count."""

    root: Hex64
    examples: Ordinal


@dataclass(frozen=True, slots=True)
class Data:
    """Name the training examples (RFC 6962 root, count), their order, and the hold-out if any."""

    root: Hex64
    examples: Ordinal
    order: Annotated[str, one_of("feistel-sha256/v1")]
    holdout: Annotated[Holdout | None, optional(built(Holdout))]


@dataclass(frozen=True, slots=True)
class Init:
    """Say where state 0 comes from."""

    kind: Annotated[str, one_of("program")]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Name the optimizer and whether its update is checked element by element or by a bound."""

    kind: Annotated[str, one_of("elementwise", "bounded")]
    name: Text


@dataclass(frozen=True, slots=True)
class Numerics:
    """Fix the numerics class, its unit roundoff, and every tolerance (hexadecimal floats)."""

    class_: Text
    unit_roundoff: Positive
    c: Positive
    c_row: Positive
    cap: Positive
    a2: Positive
    a2_cold: Positive


@dataclass(frozen=True, slots=True)
class PropertyRule:
    """Promise that a program counts at least numerator/denominator correct on the data."""

    name: Text
    program: Hex64
    data_root: Hex64
    numerator: Count
    denominator: Ordinal
    margin: Count

    def __post_init__(self) -> None:
        if self.numerator > self.denominator:
            raise FormatError(
                f"contract.properties: threshold of {self.name!r} is above one", code="field"
            )


@dataclass(frozen=True, slots=True)
class Retention:
    """Say how long, by whom, at what price and how soon a step can be opened."""

    window: Text
    holders: Annotated[tuple[str, ...], increasing(TEXT)]
    price: Text
    deadline: Text


@dataclass(frozen=True, slots=True)
class Contract:
    """State what is trained, for how many steps, on what, and how it is judged."""

    version: Annotated[int, integer(VERSION, VERSION)]
    steps: Ordinal
    batch_size: Ordinal
    seed: Count
    seed_rule: Annotated[str, one_of("fixed", "beacon")]
    programs: Programs
    constants: Hex64
    rules: Hex64
    config: Hex64
    data: Data
    init: Init
    optimizer: Optimizer
    numerics: Numerics
    properties: Annotated[tuple[PropertyRule, ...], listed(built(PropertyRule))]
    retention: Retention

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.properties]
        if len(set(names)) != len(names):
            raise FormatError("contract.properties: a name is used twice", code="field")
        if self.seed_rule == "beacon":
            raise UnsupportedError(
                "contract.seedRule: 'beacon' has no source yet; use 'fixed'", code="seed rule"
            )

    def to_bytes(self) -> bytes:
        """Write contract.json: canonical bytes, the inverse of `from_bytes`.

        Raises:
            FormatError: naming the field that breaks its rule.
        """
        value = CONTRACT.dump(self)
        CONTRACT.load(value, "contract")
        return canonical.encode(value)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Contract":
        """Read contract.json.

        Raises:
            FormatError: for other bytes, naming the field.
        """
        value = canonical.decode(data, max_bytes=MAX_ENVELOPE_BYTES)
        return cast(Contract, CONTRACT.load(value, "contract"))

    @property
    def id(self) -> str:
        """Return the contract id: hex SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


CONTRACT = built(Contract)
