"""Numerics classes: how finely each kind of operator rounds, and the tolerances that go with it.

A contract copies its class's numbers, so that it can be judged without this table; the table says
which numbers are the usual ones, and between which backends honest replays were held to them. Those
of a class that nobody has measured are derived from its unit roundoff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attest.contract import Numerics

F32 = 2.0**-24
TF32 = 2.0**-11
BF16 = 2.0**-8

# The reduction model: sums, dots, convolutions and scatters add in float32, in any order.
FLOAT32_ANY_ORDER = "float32-any-order"
COLD_STEPS = 10
"""Steps before this one are cold: `a2_cold` counts instead of `a2`."""

Excess = Literal["refuted", "unattestable"]
LocalZeros = Literal["refuted", "ignored"]


@dataclass(frozen=True, slots=True)
class Roundoff:
    """Give the unit roundoff (half the distance from 1 to the next number) by kind of operator.

    Attributes:
        dot: each operand of a matrix product or convolution, as the multiplier reads it.
        reduce: each partial sum of a reduction, matrix product, convolution or scatter.
        elementwise: the result of each elementwise operator of the gradient.
        storage: an activation as it is kept between operators.
        update: each operator of the update, which works on a float32 master in every class.
    """

    dot: float
    reduce: float
    elementwise: float
    storage: float
    update: float = F32

    @property
    def coarsest(self) -> float:
        """Return the largest of all kinds: the class's unit roundoff."""
        return max(self.dot, self.reduce, self.elementwise, self.storage, self.update)


@dataclass(frozen=True, slots=True)
class ClassRules:
    """Hold a class's arithmetic and its usual tolerances.

    Attributes:
        name: as contracts write it.
        words: what is computed how, in a few words for people.
        roundoff: unit roundoff by kind of operator.
        reduction: the reduction model.
        dot_algorithm: jax's `DotAlgorithmPreset` of a matrix product of float32 operands.
        c, c_row: gradient tolerance per tensor and per block, in spreads.
        phi, phi_sum: floor of a spread in unit roundoffs of the block's own norm, for gradients
            and for sums of one sign (loss, weight, forward sums).
        cap: spread over gradient norm, per tensor, above which a step is unattestable.
        a2, a2_cold: largest difference of two updates in learning rates, from step `COLD_STEPS`
            and before; None where it does not apply.
        a2_excess: what a difference above `a2` means.
        a2_exempt: optimizers to which A2 does not apply: those linear in the gradient, for which it
            is the gradient check over again, and sign updates where rounding alone flips signs.
        local_zeros: whether an element with a zero tangent that is not structurally zero must be
            bit-equal too.
        null_gradient: what applies to a tensor whose gradient is mathematically zero, which the
            contract names: the gradient check alone, without cap and A2.
        measured: pairs of backends (`backend_pair`) between which honest replays were held to these
            constants, with what came out in docs/red_team.md; none where they are declared alone.
    """

    name: str
    words: str
    roundoff: Roundoff
    dot_algorithm: str
    c: float
    c_row: float
    cap: float
    a2: float
    a2_cold: float | None
    a2_excess: Excess
    local_zeros: LocalZeros
    measured: frozenset[str]
    a2_exempt: tuple[str, ...] = ("lion", "momentum", "sgd")
    phi: float = 1.0
    phi_sum: float = 4.0
    reduction: str = FLOAT32_ANY_ORDER
    null_gradient: Literal["uncapped"] = "uncapped"

    @property
    def unit_roundoff(self) -> float:
        """Return the coarsest unit roundoff, of which the floor of a spread is made."""
        return self.roundoff.coarsest

    @property
    def source(self) -> str:
        """Return where the constants come from, in words."""
        if not self.measured:
            return "declared, not measured"
        return f"measured {', '.join(sorted(self.measured))}"


def backend_pair(trainer: str, auditor: str) -> str:
    """Return how a pair of backends is written: sorted, joined by a slash."""
    return "/".join(sorted((trainer, auditor)))


_ON_CPUS = frozenset({backend_pair("cpu", "cpu")})
_LISTED = (
    ClassRules(
        name="f32",
        words="float32 throughout",
        roundoff=Roundoff(dot=F32, reduce=F32, elementwise=F32, storage=F32),
        dot_algorithm="F32_F32_F32",
        c=4.0,
        c_row=10.0,
        cap=1e-4,
        a2=1e-3,
        a2_cold=0.1,
        a2_excess="refuted",
        local_zeros="refuted",
        measured=_ON_CPUS,
        a2_exempt=("momentum", "sgd"),
    ),
    # Caps of the derived classes are 64 unit roundoffs; the largest honest spread that was measured
    # is 22 in f32 and 9 in bf16. Rounding this coarse revives dead units, so local zeros are left
    # to A2, whose excess only makes a step unattestable as long as nobody measured these classes.
    ClassRules(
        name="tf32",
        words="matrix products of operands with 11 significant bits, all else float32",
        roundoff=Roundoff(dot=TF32, reduce=F32, elementwise=F32, storage=F32),
        dot_algorithm="TF32_TF32_F32",
        c=4.0,
        c_row=10.0,
        cap=64 * TF32,
        a2=0.03,
        a2_cold=None,
        a2_excess="unattestable",
        local_zeros="ignored",
        measured=frozenset(),
    ),
    ClassRules(
        name="bf16x3",
        words="matrix products of operands split into two bfloat16, all else float32",
        roundoff=Roundoff(dot=BF16 * BF16, reduce=F32, elementwise=F32, storage=F32),
        dot_algorithm="BF16_BF16_F32_X3",
        c=4.0,
        c_row=10.0,
        cap=64 * BF16 * BF16,
        a2=0.01,
        a2_cold=None,
        a2_excess="unattestable",
        local_zeros="ignored",
        measured=frozenset(),
    ),
    ClassRules(
        name="bf16_f32acc",
        words="matrix products of operands rounded to bfloat16, results and sums in float32",
        roundoff=Roundoff(dot=BF16, reduce=F32, elementwise=F32, storage=F32),
        dot_algorithm="BF16_BF16_F32",
        c=8.0,
        c_row=8.0,
        cap=0.1,
        a2=0.03,
        a2_cold=None,
        a2_excess="unattestable",
        local_zeros="ignored",
        measured=_ON_CPUS,
    ),
    # 8 and 8 held for transformers and perceptrons that summed in bfloat16; sums in float32, which
    # this class demands, bring the largest honest residual below 1.3 spreads.
    ClassRules(
        name="bf16",
        words="activations in bfloat16, sums in float32, parameters with a float32 master",
        roundoff=Roundoff(dot=BF16, reduce=F32, elementwise=BF16, storage=BF16),
        dot_algorithm="BF16_BF16_F32",
        c=8.0,
        c_row=8.0,
        cap=0.1,
        a2=0.03,
        a2_cold=None,
        a2_excess="unattestable",
        local_zeros="ignored",
        measured=_ON_CPUS,
    ),
)
CLASSES: Mapping[str, ClassRules] = MappingProxyType({rules.name: rules for rules in _LISTED})
"""The classes that this version knows, by name."""


def standard(numerics: Numerics) -> bool:
    """Say whether a contract's numbers are no looser than its class's usual ones.

    A class that this version does not know has none, and a contract that names tensors with a null
    gradient takes them out of checks on its own word: neither is standard.
    """
    usual = CLASSES.get(numerics.class_)
    if usual is None or numerics.null_gradients:
        return False
    return not looser(numerics.rules, usual)


def looser(rules: ClassRules, usual: ClassRules) -> tuple[str, ...]:
    """Return the names of the fields that accept more than the usual ones do."""
    numbers = ("c", "c_row", "phi", "phi_sum", "cap", "a2")
    found = [name for name in numbers if not getattr(rules, name) <= getattr(usual, name)]
    kinds = ("dot", "reduce", "elementwise", "storage", "update")
    found += [
        f"roundoff.{kind}"
        for kind in kinds
        if not getattr(rules.roundoff, kind) <= getattr(usual.roundoff, kind)
    ]
    if usual.a2_cold is not None and not (
        rules.a2_cold is not None and rules.a2_cold <= usual.a2_cold
    ):
        found.append("a2_cold")
    found += [name for name in ("reduction", "dot_algorithm") if _differ(rules, usual, name)]
    found += [
        name
        for name in ("a2_excess", "local_zeros")
        if getattr(usual, name) == "refuted" and _differ(rules, usual, name)
    ]
    if not set(rules.a2_exempt) <= set(usual.a2_exempt):
        found.append("a2_exempt")
    return tuple(found)


def _differ(rules: ClassRules, usual: ClassRules, name: str) -> bool:
    return getattr(rules, name) != getattr(usual, name)
