"""Check A of everything that `gradient` and `scalars` gave at a step: tensors, sums and numbers."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anh_jax.bounds.acceptance import (
    TensorFinding,
    Terms,
    check_tensor,
)
from anh_jax.bounds.deviations import Spread, TensorSpread
from anh_jax.bounds.statistic import Array, Statistic, host_leaves, largest
from anh_jax.errors import ProgramError
from anh_jax.program.tree import Path, path_text
from attest.numerics_class import ClassRules

# The spread of a number that is computed here from what is committed: its floor alone.
_STILL = TensorSpread(0.0, (np.zeros(()),), np.zeros((), np.bool_))

# Numbers that scale the update: sums in float32, however coarsely the class rounds products and
# activations. By its coarsest roundoff a norm could be an eighth off in bf16, and with it a
# clipped step.
_SUMMED = frozenset(("globalNorm", "weight"))


@dataclass(frozen=True)
class RowNumbers:
    """The numbers that a row states of a step; `declared` is its bound, None where it has none."""

    loss: float
    weight: float
    global_norm: float
    finite: bool
    declared: float | None = None


@dataclass(frozen=True)
class Findings:
    """What check A and exact zeros found: the worst of each, and what could not be judged.

    `spread` is the largest that counted against the cap, over the reference's norm. `blind` names
    the operator that rounding could not be followed through; empty where there is none.
    """

    a: Statistic
    a_row: Statistic
    zeros: Statistic
    spread: Statistic
    capped: tuple[Path, ...]
    blind: str = ""


class GradientCheck:
    """Judges outputs by a contract's rules.

    `null_gradients` are path texts of parameters whose gradient is mathematically zero: what is
    committed there is rounding alone, so neither the cap nor a declared bound applies.
    """

    def __init__(self, rules: ClassRules, null_gradients: Collection[str]) -> None:
        self._rules = rules
        self._null = frozenset(null_gradients)

    def check(
        self,
        committed: Any,
        reference: Any,
        *,
        numbers: RowNumbers,
        scalars: Any,
        spread: Spread | ProgramError,
        structural: Mapping[Path, Array],
    ) -> Findings:
        """Judge the committed `gradient` and `statistics`, of the reference's form, and numbers.

        Instead of a spread there may be why none is known: then only equal bits are judged.
        `reference` is what `gradient` gives here, `scalars` what the scalars program gives of the
        committed outputs: the norm is judged as a function of the gradient that is committed.
        """
        pairs = list(self._pairs(committed, reference, numbers, scalars))
        blind = str(spread) if isinstance(spread, ProgramError) else ""
        known: dict[Path, TensorSpread] = {}
        if not isinstance(spread, ProgramError):
            known.update(spread.tensors)
        known["globalNorm",] = _STILL
        found = {
            path: check_tensor(
                _name(path),
                theirs,
                ours,
                terms=self._terms(path, numbers.declared),
                spread=known.get(path),
                structural=structural.get(path),
            )
            for path, theirs, ours in pairs
        }
        finite = Statistic(0.0, "finite flag")
        if bool(np.asarray(scalars["finite"])) != numbers.finite:
            finite = Statistic(math.inf, "finite flag")
        return _summed(found, finite, blind)

    def _pairs(
        self, committed: Any, reference: Any, numbers: RowNumbers, scalars: Any
    ) -> Iterator[tuple[Path, Array, Array]]:
        for part in ("gradient", "statistics"):
            told = host_leaves(committed[part])
            for path, ours in host_leaves(reference[part]).items():
                yield (part, *path), told[path], ours
        single = (
            ("loss", numbers.loss, reference["loss"]),
            ("weight", numbers.weight, reference["weight"]),
            ("globalNorm", numbers.global_norm, scalars["globalNorm"]),
        )
        for name, value, ours in single:
            with np.errstate(over="ignore"):  # a number too large for the dtype is infinite
                theirs = np.asarray(value, np.asarray(ours).dtype)
            yield (name,), theirs, np.asarray(ours)

    def _terms(self, path: Path, declared: float | None) -> Terms:
        rules, unit = self._rules, self._rules.unit_roundoff
        c, row, zeros = rules.c, rules.c_row, rules.local_zeros
        if path[0] != "gradient":
            # A cap guards what moves the state; the loss and the norm are told, not used.
            cap = rules.cap if path[0] == "statistics" else math.inf
            if path[0] in _SUMMED:
                unit = max(rules.roundoff.reduce, rules.roundoff.update)
            return Terms(c, row, rules.phi_sum * unit, cap, zeros)
        if path_text(path[1:]) in self._null:
            return Terms(c, row, rules.phi * unit, math.inf, zeros)
        return Terms(c, row, rules.phi * unit, rules.cap, zeros, declared)


def _name(path: Path) -> str:
    return path_text(path[1:] if path[0] == "gradient" else path)


def _summed(found: Mapping[Path, TensorFinding], finite: Statistic, blind: str) -> Findings:
    moving = sorted(path for path in found if path[0] in ("gradient", "statistics"))
    return Findings(
        a=largest([*(f.a for f in found.values()), finite]),
        a_row=largest(f.a_row for f in found.values()),
        zeros=largest(f.zeros for f in found.values()),
        spread=largest(Statistic(found[path].spread, _name(path)) for path in moving),
        capped=tuple(path for path, finding in found.items() if finding.capped),
        blind=blind,
    )
