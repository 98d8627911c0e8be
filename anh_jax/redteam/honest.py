"""Honest executors against the same checks: how often is somebody refused who did nothing wrong?

Each variant computes the same steps in a process of its own, and counts only where it is proven to
round otherwise: where bits of its gradient differ or, where that is zero whatever rounds, bits of
its update. The thresholds are the contract's; nothing is fitted here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anh_jax.bounds.step_check import CommittedStep, StepStatistics
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.executors import (
    BEFORE,
    NUMBERS,
    VARIANTS,
    Variant,
    child_environment,
    write_data,
)
from anh_jax.redteam.honest_states import FIRST_SEED, NamedState, honest_states
from anh_jax.redteam.step_numbers import row_numbers
from anh_jax.redteam.table import json_number, upper_limit
from anh_jax.run_directory import RunDirectory
from anh_jax.training.executor import Tree
from anh_jax.training.retained_steps import RetainedSteps
from anh_jax.training.state import State, moving_part

_TIMEOUT = 900
# Names the Python of another environment, whose jax is of another version.
OTHER_PYTHON = "ANH_OTHER_PYTHON"


@dataclass(frozen=True)
class Replay:
    """One step computed by a variant: outcome, margin, and the share of elements that differ.

    `gradient` is the margin of the gradient's checks alone: those of the update rarely differ.
    `changed` is the share of the gradient's elements; `updated` that of the state after the step,
    looked at only where the gradient has the same bits.
    """

    variant: str
    state: str
    outcome: str
    margin: float
    gradient: float
    changed: float
    words: str
    updated: float = 0.0

    @property
    def inert(self) -> bool:
        """Tell whether not one bit differs: such a replay shows nothing."""
        return not (self.changed or self.updated)


@dataclass(frozen=True)
class HonestCount:
    """All replays; those without a changed bit are counted apart, for they show nothing."""

    replays: tuple[Replay, ...]
    inert: tuple[Replay, ...]
    faults: Mapping[str, str]

    @property
    def n(self) -> int:
        """Return how many replays count."""
        return len(self.replays)

    @property
    def false_rejects(self) -> int:
        """Return how many of the replays that count were refuted."""
        return sum(replay.outcome == "refuted" for replay in self.replays)

    @property
    def refused(self) -> tuple[Replay, ...]:
        """Return every replay that was refuted, whether it counts or not."""
        return tuple(r for r in (*self.replays, *self.inert) if r.outcome == "refuted")

    @property
    def uncovered(self) -> int:
        """Return how many could not be judged."""
        return sum(replay.outcome == "unattestable" for replay in self.replays)

    def document(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        margins = [replay.margin for replay in self.replays]
        states = {(replay.state) for replay in self.replays}
        return {
            "n": self.n,
            "independent_states": len(states),
            "false_rejects": self.false_rejects,
            "upper_limit": upper_limit(self.false_rejects, self.n),
            "unattestable": self.uncovered,
            "inert": len(self.inert),
            "inert_rejects": sum(replay.outcome == "refuted" for replay in self.inert),
            "states": self.by_state(),
            "margin": json_number(max(margins, default=None)),
            "gradient_margin": json_number(max((r.gradient for r in self.replays), default=None)),
            "variants": [dict(zip(self.heads, row, strict=True)) for row in self.rows()],
            "not_run": dict(self.faults),
        }

    heads = (
        "variant",
        "n",
        "false rejects",
        "largest margin",
        "of the gradient",
        "bits changed",
        "inert",
    )

    def by_state(self) -> dict[str, dict[str, int]]:
        """Return by kind of state how many replays count, were refuted and show nothing."""
        found: dict[str, dict[str, int]] = {}
        for replay in (*self.replays, *self.inert):
            kind = replay.state.rsplit(" ", 1)[0]
            counts = found.setdefault(kind, {"n": 0, "false_rejects": 0, "inert": 0})
            counts["inert" if replay.inert else "n"] += 1
            counts["false_rejects"] += replay.outcome == "refuted"
        return found

    def rows(self) -> list[list[str]]:
        """Return a line of text cells for each variant."""
        rows: list[list[str]] = []
        for name in dict.fromkeys(r.variant for r in (*self.replays, *self.inert)):
            mine = [r for r in self.replays if r.variant == name]
            still = sum(r.variant == name for r in self.inert)
            rejects = sum(r.outcome == "refuted" for r in mine)
            margin = max((r.margin for r in mine), default=0.0)
            changed = float(np.mean([r.changed for r in mine])) if mine else 0.0
            gradient = max((r.gradient for r in mine), default=0.0)
            rows.append([name, str(len(mine)), str(rejects), f"{margin:.2g}", f"{gradient:.2g}",
                         f"{changed:.1%}", str(still)])  # fmt: skip
        return rows

    def lines(self) -> list[str]:
        """Return the counts in words."""
        limit = upper_limit(self.false_rejects, self.n)
        told = [f"honest variants: {self.false_rejects} of {self.n} replays refused "
                f"(one-sided 95 % limit {limit:.2%}), {self.uncovered} not judged, "
                f"{len(self.inert)} without a changed bit left out"]  # fmt: skip
        told += [f"  {name}: not run: {why}" for name, why in self.faults.items()]
        told += [
            f"  {kind}: {counts['false_rejects']} of {counts['n']} refused, {counts['inert']} inert"
            for kind, counts in self.by_state().items()
        ]
        return told + [f"  {r.variant} at {r.state}: {r.words}" for r in self.refused]


def count_honest(
    bench: RedTeamBench,
    *,
    rounds: int,
    told: Callable[[str], None],
    variants: Sequence[Variant] = VARIANTS,
) -> HonestCount:
    """Replay the honest states of `rounds` seeds by each variant and judge every step."""
    folder = bench.new_folder()
    run = RunDirectory.create(folder)
    bench.prepared.write(run)
    write_data(folder, bench.materials.source)
    states = [found for turn in range(rounds) for found in honest_states(bench, turn)]
    before = RetainedSteps(folder / BEFORE)
    for number, named in enumerate(states, start=1):
        outputs = bench.gradient(named.state, bench.piece(int(named.state["step"]) + 1))
        before.save(number, outputs, named.state)
    replays: list[Replay] = []
    inert: list[Replay] = []
    faults: dict[str, str] = {}
    for variant in variants:
        if fault := _compute(folder, variant, bench.batch_size):
            faults[variant.name] = fault
            continue
        for number, named in enumerate(states, start=1):
            replay = _judged(bench, folder, variant, number, named)
            (inert if replay.inert else replays).append(replay)
        told(f"honest, {variant.name}: {sum(r.variant == variant.name for r in replays)} replays")
    return HonestCount(tuple(replays), tuple(inert), faults)


def _compute(folder: Path, variant: Variant, batch: int) -> str:
    """Run a variant in a process of its own; return why it could not, in a line."""
    if batch % variant.devices or batch % variant.pieces:
        return f"a batch of {batch} does not divide by {max(variant.devices, variant.pieces)}"
    python = sys.executable
    if variant.name == "other-jax":
        python = os.environ.get(OTHER_PYTHON, "")
        if not python:
            return f"{OTHER_PYTHON} names no other Python"
    command = [python, "-m", "anh_jax.redteam.executors", str(folder), variant.name]
    environment = child_environment(variant)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]
    return ""


def _judged(
    bench: RedTeamBench, folder: Path, variant: Variant, number: int, named: NamedState
) -> Replay:
    kept = RetainedSteps(folder / variant.name)
    numbers = json.loads((folder / variant.name / NUMBERS).read_text())[str(number)]
    shapes, state = bench.workbench, named.state
    step = int(state["step"]) + 1
    outputs = kept.outputs(number, shapes.abstract_outputs())
    after = kept.state(number, shapes.abstract_state())
    committed = CommittedStep(step, state, outputs, after, row_numbers(numbers))
    found = bench.step_check().check(committed, seed=FIRST_SEED + number)
    changed = changed_share(outputs["gradient"], found.reference["gradient"])
    gradient = max(found.a.value, found.a_row.value)
    updated = 0.0 if changed else changed_share(moving_part(after), _own_update(bench, state, step))
    return Replay(
        variant.name,
        named.name,
        found.outcome,
        margin_of(found),
        gradient,
        changed,
        found.words,
        updated,
    )


def _own_update(bench: RedTeamBench, state: State, step: int) -> Tree:
    return moving_part(bench.update(state, bench.gradient(state, bench.piece(step)), step))


def margin_of(found: StepStatistics) -> float:
    """Return the largest statistic over its threshold."""
    every = (found.a, found.a_row, found.zeros, found.a2, found.b, found.walk)
    return max(statistic.value for statistic in every if statistic is not None)


def changed_share(ours: Any, theirs: Any) -> float:
    """Return the share of elements whose bits differ."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    words = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    different = sum(int((a.view(np.uint32) != b.view(np.uint32)).sum()) for a, b in words)
    return different / sum(a.size for a, _ in words)
