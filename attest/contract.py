"""The contract: what a run promised to compute, as one canonical JSON object.

Its SHA-256 is the contract id. Programs, tables, rules and data are named by digest.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, cast

from attest import canonical, numerics_class
from attest.canonical import hex_float, parse_hex_float
from attest.envelope import MAX_ENVELOPE_BYTES
from attest.errors import FormatError, UnsupportedError
from attest.numerics_class import CLASSES, FLOAT32_ANY_ORDER, ClassRules, Excess, LocalZeros
from attest.schema import (
    POSITIVE,
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
class Roundoff:
    """Fix the unit roundoff by kind of operator (`attest.numerics_class.Roundoff`)."""

    dot: Positive
    reduce: Positive
    elementwise: Positive
    storage: Positive
    update: Positive


@dataclass(frozen=True, slots=True)
class Numerics:
    """Fix the numerics class, how it rounds, and every tolerance (hexadecimal floats).

    The fields are those of `attest.numerics_class.ClassRules`; `null_gradients` are the paths, such
    as `blocks/attention/key_bias`, of parameters whose gradient is mathematically zero: neither the
    cap nor A2 applies to them.
    """

    class_: Text
    unit_roundoff: Positive
    roundoff: Roundoff
    reduction: Annotated[str, one_of(FLOAT32_ANY_ORDER)]
    dot_algorithm: Text
    c: Positive
    c_row: Positive
    phi: Positive
    phi_sum: Positive
    cap: Positive
    a2: Positive
    a2_cold: Annotated[str | None, optional(POSITIVE)]
    a2_excess: Annotated[str, one_of("refuted", "unattestable")]
    a2_exempt: Annotated[tuple[str, ...], increasing(TEXT)]
    local_zeros: Annotated[str, one_of("refuted", "ignored")]
    null_gradients: Annotated[tuple[str, ...], increasing(TEXT)]

    def __post_init__(self) -> None:
        table = self.roundoff
        kinds = (table.dot, table.reduce, table.elementwise, table.storage, table.update)
        if parse_hex_float(self.unit_roundoff) != max(map(parse_hex_float, kinds)):
            raise FormatError(
                "contract.numerics.unitRoundoff: must be the largest entry of roundoff",
                code="field",
            )

    @classmethod
    def of(cls, rules: ClassRules, null_gradients: tuple[str, ...] = ()) -> "Numerics":
        """Write a class's rules into a contract."""
        table = rules.roundoff
        return cls(
            class_=rules.name,
            unit_roundoff=hex_float(rules.unit_roundoff),
            roundoff=Roundoff(
                dot=hex_float(table.dot),
                reduce=hex_float(table.reduce),
                elementwise=hex_float(table.elementwise),
                storage=hex_float(table.storage),
                update=hex_float(table.update),
            ),
            reduction=rules.reduction,
            dot_algorithm=rules.dot_algorithm,
            c=hex_float(rules.c),
            c_row=hex_float(rules.c_row),
            phi=hex_float(rules.phi),
            phi_sum=hex_float(rules.phi_sum),
            cap=hex_float(rules.cap),
            a2=hex_float(rules.a2),
            a2_cold=None if rules.a2_cold is None else hex_float(rules.a2_cold),
            a2_excess=rules.a2_excess,
            a2_exempt=tuple(sorted(rules.a2_exempt)),
            local_zeros=rules.local_zeros,
            null_gradients=tuple(sorted(null_gradients)),
        )

    @property
    def rules(self) -> ClassRules:
        """Return the rules this contract sets, which are what its audits apply.

        They are the contract's own numbers; the class's name says only what they usually are.
        """
        table = self.roundoff
        usual = CLASSES.get(self.class_)
        return ClassRules(
            name=self.class_,
            words="" if usual is None else usual.words,
            roundoff=numerics_class.Roundoff(
                dot=parse_hex_float(table.dot),
                reduce=parse_hex_float(table.reduce),
                elementwise=parse_hex_float(table.elementwise),
                storage=parse_hex_float(table.storage),
                update=parse_hex_float(table.update),
            ),
            reduction=self.reduction,
            dot_algorithm=self.dot_algorithm,
            c=parse_hex_float(self.c),
            c_row=parse_hex_float(self.c_row),
            phi=parse_hex_float(self.phi),
            phi_sum=parse_hex_float(self.phi_sum),
            cap=parse_hex_float(self.cap),
            a2=parse_hex_float(self.a2),
            a2_cold=None if self.a2_cold is None else parse_hex_float(self.a2_cold),
            a2_excess=cast(Excess, self.a2_excess),
            a2_exempt=self.a2_exempt,
            local_zeros=cast(LocalZeros, self.local_zeros),
            measured=frozenset() if usual is None else usual.measured,
        )


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
