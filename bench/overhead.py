"""Claim: attesting every step costs a few percent of a step, and stored programs cost nothing.

Baseline of the first: the same loop, programs and batches in the same process, nothing signed.
Baseline of the second: `jax.jit` of the functions that the programs were exported from.
Blocks of steps alternate; every ratio is that of two neighbouring blocks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import Report, Spread, parser, say

import jax
from anh_jax.digest.host import tree_digest
from anh_jax.preparation import PreparedContract
from anh_jax.workbench import MeshSizes, Workbench, materials_of
from contestants import AttestedContestant, Contestant, JittedPrograms, prepared, unattested

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CLAIM = "attested over unattested step time; throughput of stored programs over jax.jit"


@dataclass(frozen=True)
class Task:
    """A shipped configuration, how long its blocks are, and what its figures are called."""

    label: str
    config: str
    block: int
    goal: float


TASKS = (Task("lm", "python_docs_lm.yaml", 12, 1.03), Task("digits", "digits.yaml", 60, 1.10))
_GOAL_EXPORTED = 0.99


def main() -> None:
    options = _options()
    report = Report(CLAIM)
    exported: dict[str, Spread] = {}
    for task in TASKS:
        if options.task in (task.label, "both"):
            exported[task.label] = _measure(task, options, report)
    worst = min(exported, key=lambda label: exported[label].median)
    report.figure("exported_vs_jit", exported[worst].median, "ratio", exported[worst])
    report.close(options.form)


def _options() -> argparse.Namespace:
    made = parser(CLAIM)
    made.add_argument("--rounds", type=int, default=20, help="blocks of each contestant")
    made.add_argument("--steps", type=int, default=0, help="steps a block (0: as configured)")
    made.add_argument("--task", choices=("lm", "digits", "both"), default="both")
    options = made.parse_args()
    if options.quick:
        options.rounds, options.steps = 3, options.steps or 8
    return options


def _measure(task: Task, options: argparse.Namespace, report: Report) -> Spread:
    rounds, block = options.rounds, options.steps or task.block
    contract = prepared(CONFIGS / task.config, (rounds + 1) * block)
    bench = Workbench(materials_of(contract), MeshSizes(), microbatch=None)
    with tempfile.TemporaryDirectory(prefix="anh-bench-") as folder:
        plain, jitted, attested = _contestants(contract, bench, Path(folder))
        seconds = _rounds((plain, attested, jitted), rounds, block, task.label)
        same = len({tree_digest(c.state, step=(rounds + 1) * block).root for c in (plain, attested)})
        logged = attested.close()
    ratio = _ratios(seconds[attested.name], seconds[plain.name])
    throughput = _ratios(seconds[jitted.name], seconds[plain.name])
    step = statistics.median(seconds[plain.name]) / block
    report.table(
        f"{task.label}: {task.config}, {rounds} blocks of {block} steps each",
        ("", "ms a step", "ratio (quartiles)", "goal"),
        (
            ("unattested (baseline)", f"{1e3 * step:.2f}", "1", ""),
            (
                "attested",
                f"{1e3 * statistics.median(seconds[attested.name]) / block:.2f}",
                ratio.text(),
                f"<= {task.goal}",
            ),
            (
                "jax.jit, unattested",
                f"{1e3 * statistics.median(seconds[jitted.name]) / block:.2f}",
                "",
                "",
            ),
            ("stored programs' throughput over jax.jit's", "", throughput.text(), ">= 0.99"),
        ),
    )
    _where(attested, rounds * block, step, report)
    print(f"  both end in {'the same state' if same == 1 else 'DIFFERENT STATES'}; {logged} rows are in the log")
    report.figure(f"attested_ratio_{task.label}", ratio.median, "ratio", ratio)
    report.figure(f"step_ms_{task.label}", 1e3 * step, "ms")
    return throughput


def _contestants(
    contract: PreparedContract, bench: Workbench, folder: Path
) -> tuple[Contestant, Contestant, AttestedContestant]:
    plain = unattested("unattested", bench, bench.executor, folder / "plain.jsonl")
    programs = JittedPrograms(contract, bench)
    jitted = unattested("jitted", bench, programs, folder / "jitted.jsonl")
    return plain, jitted, AttestedContestant(contract, bench, folder / "run")


def _rounds(
    contestants: Sequence[Contestant], rounds: int, block: int, label: str
) -> dict[str, list[float]]:
    """Return the seconds of every block by contestant; the first round compiles and is left out."""
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    for number in range(rounds + 1):
        # Every contestant follows every other one equally often.
        order = contestants if number % 2 else tuple(reversed(contestants))
        for contestant in order:
            spent = contestant.block(block)
            if number:
                seconds[contestant.name].append(spent)
        if number == 0:
            for contestant in contestants:
                if isinstance(contestant, AttestedContestant):
                    contestant.costs.clear()
        say(f"{label}: round {number} of {rounds}")
    return seconds


def _ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def _where(attested: AttestedContestant, steps: int, step: float, report: Report) -> None:
    costs = attested.costs
    rows = (
        ("digests of gradient and state", statistics.median(costs.digest)),
        ("sign and append the row", statistics.median(costs.signing)),
        ("ship to the log (its own thread)", costs.shipping / steps),
    )
    report.table(
        "  where it goes, in CPU time",
        ("", "us a step", "share of a step"),
        tuple((name, f"{1e6 * spent:.0f}", f"{spent / step:.1%}") for name, spent in rows),
    )


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main()
