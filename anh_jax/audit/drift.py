"""Drift: whether what is left of audited gradients, over several steps, leans one way.

Each step's residual g - g_ref may lie within its tolerance and still be a push in one direction,
spent again at every step. Rounding is expected to point elsewhere each time, so over a run's
audited steps the mean cosine between pairs of residuals says which it was (docs/numerics.md). That
honest residuals do not lean is no law: it is measured, for each pair of execution classes, by
honest replays, and frozen in `drift_nulls.json` (`bench/drift_null.py`). Without a null of the pair
nothing is said. A direction that is drawn anew at every step is not seen.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from anh_jax.bounds.statistic import Statistic, largest
from anh_jax.errors import AnhError
from anh_jax.program.tree import leaves_of, path_text

NULLS = Path(__file__).parent / "drift_nulls.json"
# Fewer elements than this say nothing about a direction.
SMALLEST_TENSOR = 32
# A few elements with a large residual would decide the cosine alone. They also raise the root mean
# square that they are clipped by, hence several rounds.
_CLIP = 4.0
_ROUNDS = 8
# Standard deviations that the cosine of unrelated residuals may lie above the null.
DEVIATIONS = 5.0
_FEWEST = 2

Verdict = Literal["pass", "fail", "no null known"]


@dataclass(frozen=True)
class ClassPair:
    """Two executors of one numerics class: their backends, sorted, and what else differs.

    `differs` are names of the execution class (`mesh`, `jaxlib`, ...) and `microbatch`, sorted.
    """

    numerics: str
    backends: tuple[str, str]
    differs: tuple[str, ...]


@dataclass(frozen=True)
class DriftNull:
    """The largest mean cosine of honest replays of a class pair that counts as honest.

    `allowed` is frozen; over it an audit still has 5 standard deviations of its own number of
    steps and elements.
    """

    pair: ClassPair
    allowed: float


@dataclass(frozen=True)
class DriftFinding:
    """The verdict on a run's residuals, in words too; `worst` is None where none was compared."""

    verdict: Verdict
    words: str
    worst: Statistic | None = None


def class_pair(numerics: str, trainer: Mapping[str, str], auditor: Mapping[str, str]) -> ClassPair:
    """Return the pair that two execution classes form (`anh_jax.environment`)."""
    names = {name for name in (*trainer, *auditor) if trainer.get(name) != auditor.get(name)}
    first, second = sorted(f"{x.get('backend')}:{x.get('deviceKind')}" for x in (trainer, auditor))
    return ClassPair(numerics, (first, second), tuple(sorted(names)))


def find_null(pair: ClassPair, path: Path = NULLS) -> DriftNull | None:
    """Return the frozen null of a class pair; None where nobody has measured one.

    Raises AnhError where the file is no list of nulls.
    """
    return next((null for null in _read(path) if null.pair == pair), None)


class DriftAccumulator:
    """The residuals of audited steps by tensor, as running sums.

    With unit vectors x_i the sum over pairs of x_i . x_j is (|sum x_i|^2 - n) / 2, so any number of
    steps takes the memory of two gradients. Sums stay where the reference lies.
    """

    def __init__(self) -> None:
        self._steps: set[int] = set()
        self._sums: dict[str, _Sums] = {}

    def add(self, step: int, committed: Any, reference: Any) -> None:
        """Add a step: the committed gradient and the auditor's own, trees of one structure.

        An element that is not finite on either side counts as equal: check A judges those.
        """
        if step in self._steps:
            return
        self._steps.add(step)
        theirs = {path_text(path): leaf for path, leaf in leaves_of(committed).items()}
        for path, ours in leaves_of(reference).items():
            name = path_text(path)
            if ours.size >= SMALLEST_TENSOR and jnp.issubdtype(ours.dtype, jnp.floating):
                self._add(name, np.asarray(theirs[name]), ours)

    def _add(self, name: str, committed: np.ndarray, reference: Any) -> None:
        like = jax.device_put(committed, getattr(reference, "sharding", None))
        unit, fourths = _direction(like, reference)
        if not math.isfinite(float(fourths)) or not float(fourths) > 0:
            return
        old = self._sums.get(name)
        total, squares = (unit, unit * unit) if old is None else _fold(old.total, old.squares, unit)
        steps, before = (0, 0.0) if old is None else (old.steps, old.fourths)
        self._sums[name] = _Sums(steps + 1, total, squares, before + float(fourths))

    def tensors(self) -> dict[str, "LeaningTensor"]:
        """Return what each tensor with a residual at two steps or more shows."""
        return {name: s.leaning() for name, s in self._sums.items() if s.steps >= _FEWEST}

    def verdict(self, null: DriftNull | None) -> DriftFinding:
        """Compare with the honest replays of the class pair."""
        if null is None:
            return DriftFinding("no null known", "nobody has measured honest replays of this pair")
        if len(self._steps) < _FEWEST:
            return DriftFinding("no null known", "fewer than two steps were compared")
        found = [
            Statistic(seen.mean / (null.allowed + DEVIATIONS * seen.deviation), name)
            for name, seen in self.tensors().items()
        ]
        top = largest(found)
        words = f"mean cosine {top.value:.2g} of what honest replays may show at {top.where}"
        if not found:
            words = "no tensor left a residual at two steps"
        return DriftFinding("pass" if top.accepted else "fail", words, top)


class DriftWatch:
    """The residuals of one audit, apart for each class pair: a run may have moved on the way."""

    def __init__(self, numerics: str) -> None:
        self._numerics = numerics
        self._pairs: dict[ClassPair, DriftAccumulator] = {}

    def of(self, trainer: Mapping[str, str], auditor: Mapping[str, str]) -> DriftAccumulator:
        """Return where the residuals of steps between two execution classes are added."""
        return self._pairs.setdefault(
            class_pair(self._numerics, trainer, auditor), DriftAccumulator()
        )

    def finding(self) -> DriftFinding:
        """Return the gravest verdict; only what all pairs pass passes."""
        found = [sums.verdict(find_null(pair)) for pair, sums in self._pairs.items()]
        for verdict in ("fail", "no null known", "pass"):
            for finding in found:
                if finding.verdict == verdict:
                    return finding
        return DriftFinding("no null known", "no gradient was weighed")


@dataclass(frozen=True)
class LeaningTensor:
    """The mean cosine over pairs of steps, and its standard deviation if signs were coins."""

    mean: float
    deviation: float
    steps: int


@dataclass(frozen=True)
class _Sums:
    steps: int
    total: jax.Array
    squares: jax.Array
    fourths: float

    def leaning(self) -> LeaningTensor:
        pairs = self.steps * (self.steps - 1) / 2
        square, spread = (float(jnp.sum(jnp.square(x))) for x in (self.total, self.squares))
        deviation = math.sqrt(max(0.0, (spread - self.fourths) / 2)) / pairs
        return LeaningTensor((square - self.steps) / (2 * pairs), deviation, self.steps)


@jax.jit
def _direction(committed: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the clipped residual as a unit vector, and the sum of its fourth powers."""
    theirs, ours = committed.astype(jnp.float32), reference.astype(jnp.float32)
    finite = jnp.isfinite(theirs) & jnp.isfinite(ours)
    residual = jnp.where(finite, theirs - ours, 0.0)
    # Scaled first: squares of residuals near 1e-20 are no float32.
    residual = residual / jnp.maximum(jnp.max(jnp.abs(residual)), jnp.finfo(jnp.float32).tiny)
    count = jnp.maximum(jnp.sum(residual != 0), 1)
    clipped = residual
    for _ in range(_ROUNDS):
        limit = _CLIP * jnp.sqrt(jnp.sum(jnp.square(clipped)) / count)
        clipped = jnp.clip(clipped, -limit, limit)
    norm = jnp.sqrt(jnp.sum(jnp.square(clipped)))
    unit = clipped / jnp.where(norm > 0, norm, 1.0)
    return unit, jnp.sum(jnp.square(jnp.square(unit)))


@jax.jit
def _fold(total: jax.Array, squares: jax.Array, unit: jax.Array) -> tuple[jax.Array, jax.Array]:
    return total + unit, squares + unit * unit


@cache
def _read(path: Path) -> tuple[DriftNull, ...]:
    try:
        entries = json.loads(path.read_text("utf-8"))["nulls"]
        return tuple(
            DriftNull(
                ClassPair(e["numerics"], tuple(e["backends"]), tuple(e["differs"])),
                float(e["allowed"]),
            )
            for e in entries
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnhError(f"{path}: holds no drift nulls ({error}); restore it") from None
