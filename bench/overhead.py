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

import jax
from contestants import AttestedContestant, Block, Contestant, JittedPrograms, prepared, unattested
from reporting import Report, Spread, parser, say

from anh_jax.digest.host import tree_digest
from anh_jax.preparation import PreparedContract
from anh_jax.workbench import MeshSizes, Workbench, materials_of

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
    for label, spread in exported.items():
        report.figure(f"exported_vs_jit_{label}", spread.median, "ratio", spread)
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
        blocks = _rounds((plain, attested, jitted), rounds, block, task.label)
        roots = {tree_digest(c.state, step=0).root for c in (plain, attested)}
        logged = attested.close()
    ratio = _ratios(blocks, attested, plain, "wall")
    throughput = _ratios(blocks, jitted, plain, "wall")
    rows: list[tuple[str, ...]] = []
    for contestant, baseline in ((plain, None), (attested, plain), (jitted, plain)):
        wall, cpu = (_per_step(blocks, contestant, block, what) for what in ("wall", "cpu"))
        ratios = ("1", "1")
        if baseline is not None:
            spreads = (_ratios(blocks, contestant, baseline, what) for what in ("wall", "cpu"))
            ratios = tuple(spread.text() for spread in spreads)
        rows.append((contestant.name, f"{wall:.2f}", ratios[0], f"{cpu:.2f}", ratios[1]))
    report.table(
        f"{task.label}: {task.config}, {rounds} blocks of {block} steps each",
        ("", "ms a step", "ratio (quartiles)", "CPU ms a step", "ratio (quartiles)"),
        rows,
    )
    step = _per_step(blocks, plain, block, "wall")
    _where(attested, rounds * block, step, report)
    same = "the same state" if len(roots) == 1 else "DIFFERENT STATES"
    print(f"  goal: attested <= {task.goal} of unattested; both end in {same}")
    print(
        f"  goal: stored programs' throughput >= {_GOAL_EXPORTED} of jax.jit's: {throughput.text()}"
    )
    print(f"  {logged} rows are in the log", flush=True)
    cpu_ratio = _ratios(blocks, attested, plain, "cpu")
    report.figure(f"attested_ratio_{task.label}", ratio.median, "ratio", ratio)
    report.figure(f"attested_cpu_ratio_{task.label}", cpu_ratio.median, "ratio", cpu_ratio)
    report.figure(f"step_ms_{task.label}", step, "ms")
    return throughput


def _contestants(
    contract: PreparedContract, bench: Workbench, folder: Path
) -> tuple[Contestant, Contestant, AttestedContestant]:
    plain = unattested("unattested (baseline)", bench, bench.executor, folder / "plain.jsonl")
    programs = JittedPrograms(contract, bench)
    jitted = unattested("jax.jit, unattested", bench, programs, folder / "jitted.jsonl")
    return plain, jitted, AttestedContestant(contract, bench, folder / "run")


def _rounds(
    contestants: Sequence[Contestant], rounds: int, steps: int, label: str
) -> dict[str, list[Block]]:
    """Return every block by contestant; the first round compiles and is left out."""
    blocks: dict[str, list[Block]] = {c.name: [] for c in contestants}
    for number in range(rounds + 1):
        # Every contestant follows every other one equally often.
        for contestant in contestants if number % 2 else tuple(reversed(contestants)):
            block = contestant.block(steps)
            if number:
                blocks[contestant.name].append(block)
            else:
                contestant.warmed_up()
        say(f"{label}: round {number} of {rounds}")
    return blocks


def _ratios(
    blocks: dict[str, list[Block]], above: Contestant, below: Contestant, what: str
) -> Spread:
    pairs = zip(blocks[above.name], blocks[below.name], strict=True)
    return Spread.of([getattr(a, what) / getattr(b, what) for a, b in pairs])


def _per_step(
    blocks: dict[str, list[Block]], contestant: Contestant, steps: int, what: str
) -> float:
    """Return the median of the milliseconds that a step took."""
    return 1e3 * statistics.median(getattr(b, what) for b in blocks[contestant.name]) / steps


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
        tuple((name, f"{1e6 * spent:.0f}", f"{1e3 * spent / step:.1%}") for name, spent in rows),
    )


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main()
