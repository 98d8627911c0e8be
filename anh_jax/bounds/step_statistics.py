"""What the checks of a step found, and what follows from all of them together."""

import math
from dataclasses import dataclass
from typing import Literal

from anh_jax.bounds.gradient_check import Findings
from anh_jax.bounds.statistic import Statistic
from anh_jax.bounds.update_judge import UpdateFindings
from anh_jax.program.tree import Path, path_text
from anh_jax.training.executor import Tree

Outcome = Literal["pass", "refuted", "unattestable"]


@dataclass(frozen=True)
class StepStatistics:
    """What the checks of a step found; each statistic is a distance over its tolerance.

    Attributes:
        a, a_row: check A, per tensor and per block.
        zeros: exact zeros: 0 or infinity.
        a2: the effect on the parameters; None where the class or the optimizer has no such check.
        b: the update, element by element.
        walk: the average share of check B's tolerance; None where no tensor is large enough.
        spread: the largest spread over its tensor's norm.
        capped: what could not be judged because rounding is too large: paths of outputs.
        outcome: of these checks together.
        words: why, in one line.
        reference: the outputs of `gradient` as computed here; empty where none were.
    """

    a: Statistic
    a_row: Statistic
    zeros: Statistic
    a2: Statistic | None
    b: Statistic
    walk: Statistic | None
    spread: Statistic
    capped: tuple[Path, ...]
    outcome: Outcome
    words: str
    reference: Tree


def concluded(
    findings: Findings,
    a2: Statistic | None,
    update: UpdateFindings,
    reference: Tree,
    *,
    excess: Literal["refuted", "unattestable"],
) -> StepStatistics:
    """Refute by any check that does not accept; what could not be judged is never passed."""
    named = {
        "A": findings.a,
        "A per block": findings.a_row,
        "zeros": findings.zeros,
        "A2": a2,
        "B": update.b,
        "walk": update.walk,
    }
    outside = {n: s for n, s in named.items() if s is not None and not s.accepted}
    weak = {"A2"} if excess == "unattestable" else set[str]()
    capped = findings.capped + update.capped
    outcome: Outcome = "pass"
    if outside.keys() - weak:
        outcome = "refuted"
    elif outside or capped:
        outcome = "unattestable"
    told = [f"{name} = {s.value:.3g} at {s.where}" for name, s in outside.items()]
    words = f"outside the bounds: {', '.join(told)}" if told else ""
    if capped:
        loose = _loose(capped, findings.blind or update.blind)
        words = f"{words}; {loose}" if words else loose
    if not words:
        given = [f"{name} {s.value:.2g}" for name, s in named.items() if s is not None]
        words = f"within bounds: {', '.join(given)}"
    return StepStatistics(
        a=findings.a,
        a_row=findings.a_row,
        zeros=findings.zeros,
        a2=a2,
        b=update.b,
        walk=update.walk,
        spread=findings.spread,
        capped=capped,
        outcome=outcome,
        words=words,
        reference=reference,
    )


def _loose(capped: tuple[Path, ...], blind: str) -> str:
    names = ", ".join(map(path_text, capped[:3]))
    more = f" and {len(capped) - 3} more" if len(capped) > 3 else ""  # noqa: PLR2004
    if blind:
        return f"rounding cannot be followed to {names}{more}: {blind}"
    return f"rounding is above the cap in {names}{more}"


def malformed(odd: Statistic) -> StepStatistics:
    """Refute what is not even of the programs' form; nothing is computed from it."""
    none = Statistic(0.0, "nowhere")
    return StepStatistics(
        a=odd,
        a_row=none,
        zeros=none,
        a2=None,
        b=Statistic(math.inf, "not computed"),
        walk=None,
        spread=none,
        capped=(),
        outcome="refuted",
        words=f"outside the bounds: {odd.where}",
        reference={},
    )
