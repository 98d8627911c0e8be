"""What an audit found, step by step and check by check, and the roots that commit to it.

The results root of a receipt is the RFC 6962 root over the canonical bytes of each step's result,
by step; so one result can be shown later without the others. The auditor's own gradient roots are
committed with a salt each: who copies a receipt cannot open them.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attest import canonical, merkle
from attest.canonical import hex_float

Outcome = Literal["pass", "refuted", "unattestable", "withheld"]
Verdict = Literal["pass", "fail", "not checked"]

SALT_BYTES = 32
# The worst comes first: what one step shows twice counts as the worse of both.
_GRAVITY: tuple[Outcome, ...] = ("refuted", "withheld", "unattestable", "pass")


@dataclass(frozen=True)
class Check:
    """One check of the run as a whole, and what was found, in words."""

    verdict: Verdict
    words: str


@dataclass(frozen=True)
class StepResult:
    """What one step's re-execution gave.

    Attributes:
        step: steps completed after it.
        outcome: `pass`, `refuted`, `unattestable` or `withheld`.
        words: why, in one line of ASCII.
        attempt: the attempt whose row was judged.
        row: the row's hash, hex; empty where there is no row.
        differs: the names of the row's numbers that came out otherwise.
        repeats: whether the auditor's own replays agreed: `equal`, `different` or `none`.
        gradient_root: the auditor's own, hex; empty where none was computed.
        spread_seed: what rounding was estimated with, 16 hex digits; empty where it was not.
            Whoever reads the result computes it from the receipt (`attest.audit_results`).
        a, a_row, zeros, a2, b, walk: the largest statistics over their tolerances
            (docs/numerics.md, "Bounded"); None where the check did not run.
    """

    step: int
    outcome: Outcome
    words: str
    attempt: int = 0
    row: str = ""
    differs: tuple[str, ...] = ()
    repeats: Literal["equal", "different", "none"] = "none"
    gradient_root: str = ""
    spread_seed: str = ""
    a: float | None = None
    a_row: float | None = None
    zeros: float | None = None
    a2: float | None = None
    b: float | None = None
    walk: float | None = None

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that the results root commits to."""
        return canonical.encode(self.document())

    def document(self) -> dict[str, Any]:
        """Return the result as JSON values; own gradient roots are committed apart, with salt."""
        return {
            "step": self.step,
            "outcome": self.outcome,
            "words": self.words,
            "attempt": self.attempt,
            "row": self.row,
            "differs": list(self.differs),
            "repeats": self.repeats,
            "spreadSeed": self.spread_seed,
            "a": _text(self.a),
            "aRow": _text(self.a_row),
            "zeros": _text(self.zeros),
            "a2": _text(self.a2),
            "b": _text(self.b),
            "walk": _text(self.walk),
        }


def graver(first: StepResult, second: StepResult) -> StepResult:
    """Return the worse of two results, the first where they weigh the same."""
    return min((first, second), key=lambda result: _GRAVITY.index(result.outcome))


def count(results: Sequence[StepResult]) -> dict[Outcome, int]:
    """Count the results by outcome."""
    return {name: sum(r.outcome == name for r in results) for name in reversed(_GRAVITY)}


def worst(values: Sequence[float | None]) -> float | None:
    """Return the largest statistic, not-a-number above all, or None where none was computed."""
    known = [value for value in values if value is not None]
    if any(value != value for value in known):
        return float("nan")
    return max(known, default=None)


def results_root(results: Sequence[StepResult]) -> bytes:
    """Return the RFC 6962 root over the canonical results, in order of step."""
    ordered = sorted(results, key=lambda result: result.step)
    return merkle.tree_root([merkle.leaf_hash(result.to_bytes()) for result in ordered])


def draw_salts(results: Sequence[StepResult]) -> dict[int, bytes]:
    """Draw a salt for each step whose gradient the auditor has computed."""
    return {r.step: secrets.token_bytes(SALT_BYTES) for r in results if r.gradient_root}


def salted_root(results: Sequence[StepResult], salts: Mapping[int, bytes]) -> bytes:
    """Return the RFC 6962 root over the auditor's own gradient roots, salted, in order of step.

    A leaf is `"anh v1 own gradient" || 0x00 || salt (32 bytes) || gradient root (32 bytes)`.
    """
    return opened_root({r.step: r.gradient_root for r in results if r.gradient_root}, salts)


def opened_root(own: Mapping[int, str], salts: Mapping[int, bytes]) -> bytes:
    """Return the same root from gradient roots (hex) and salts by step."""
    leaves = [_own_leaf(own[step], salts[step]) for step in sorted(own)]
    return merkle.tree_root([merkle.leaf_hash(leaf) for leaf in leaves])


def _text(value: float | None) -> str | None:
    return None if value is None else hex_float(value)


def _own_leaf(root: str, salt: bytes) -> bytes:
    return b"anh v1 own gradient\x00" + salt + bytes.fromhex(root)
