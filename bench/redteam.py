"""Claim: cheated steps are refuted, all of them in float32, and honest replays are not.

    python bench/redteam.py [--quick] [--json] [--task NAME]

Trains cheating runs of small contracts (docs/red_team.md names the attacks), lets the real auditor
judge them, and counts refusals of steps that other honest executors computed. No baseline: a count
stands beside its exact limit. Fails where an attack that must be seen was missed or an honest
replay was refused.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import Report, parser, say

from anh_jax.redteam.honest import HonestCount
from anh_jax.redteam.table import HEADS, Line, columns, upper_limit
from anh_jax.redteam.victims import ADAFACTOR, DIGITS, padded_text
from launch.compile_cache import set_compile_cache
from launch.redteam import suite

CLAIM = "cheated steps are refuted, honest replays are not"
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# Embedding and prediction share a table; Lion's step is a sign, and heads of 8 make short blocks.
LANGUAGE_MODEL = """
model: {name: language_model, vocabulary: 256, sequence_length: 32, width: 32, depth: 2, heads: 4,
        mlp_width: 64}
data: {name: python_docs, sequence_length: 32, holdout: {fraction: 0.01}}
loss: {name: next_token_cross_entropy}
optimizer: {name: lion, learning_rate: 1e-3, weight_decay: 0.01}
training: {steps: 24, batch_size: 24, seed: 1}
"""
ALL = tuple(attack.name for attack in suite.catalogue())
# What is nearest to passing of every family that needs nothing of the model.
NARROW = ("swapped-sample", "poisoned-label", "stale-gradient", "rate-1.0001", "no-weight-decay",
          "tf32-for-f32", "bf16x3-for-f32", "int8-weights", "fp8-weights")  # fmt: skip
COARSE = ("swapped-sample", "poisoned-label", "half-batch", "stale-gradient", "rate-1.0001",
          "overwritten-forward", "int8-weights", "fp8-weights", "rare-row-backdoor")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A contract, who attacks it, how often, and from how many seeds honest states are drawn."""

    name: str
    config: str
    attacks: tuple[str, ...]
    rounds: int
    honest_rounds: int


FLOAT32 = frozenset({"perceptron", "vit", "cnn", "lm", "adafactor", "padded"})


def _coarse(name: str) -> Task:
    return Task(name, f"{DIGITS}numerics: {{class: {name}}}\n", COARSE, 2, 5)


TASKS = (
    Task("perceptron", DIGITS, ALL, 2, 100),
    Task("vit", (CONFIGS / "digits.yaml").read_text(), NARROW, 2, 5),
    Task("cnn", (CONFIGS / "digits_convolution.yaml").read_text(), NARROW, 2, 5),
    Task("lm", LANGUAGE_MODEL, NARROW, 2, 5),
    Task("adafactor", ADAFACTOR, NARROW, 2, 5),
    Task("padded", padded_text(), ("moved-padding", "poisoned-label"), 2, 5),
    _coarse("bf16_f32acc"),
    _coarse("bf16"),
)


def _carried_out(task: Task, attacks: Sequence[str], rounds: int) -> suite.Result:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / f"{task.name}.yaml"
        config.write_text(task.config)
        return suite.carry_out(config, attacks, rounds=rounds, folder=None, told=say)


def _note_attacks(report: Report, task: Task, lines: Sequence[Line]) -> None:
    report.table(f"{task.name}: attacks", HEADS, columns(lines))
    for line in lines:
        report.figure(f"{task.name}_{line.name}_detected", line.detected, f"of {line.n}")
        if line.margin is not None and line.margin < float("inf"):
            report.figure(f"{task.name}_{line.name}_margin", line.margin, "thresholds")
        for name, value in line.damage.items():
            report.figure(f"{task.name}_{line.name}_{name.replace(' ', '_')}", value, "damage")
    missed = sum(not line.met for line in lines)
    report.figure(f"{task.name}_missed", missed, f"of {len(lines)} attacks")


def _note_honest(report: Report, task: Task, honest: HonestCount) -> None:
    report.table(f"{task.name}: honest replays", honest.heads, honest.rows())
    found = honest.document()
    name = f"{task.name}_honest"
    report.figure(f"{name}_false_rejects", honest.false_rejects, f"of {honest.n} replays")
    report.figure(f"{name}_upper_limit", found["upper_limit"], "share, one-sided 95 %")
    report.figure(f"{name}_states", found["independent_states"], "states")
    report.figure(f"{name}_unattestable", honest.uncovered, f"of {honest.n} replays")
    if honest.n:
        for kind in ("margin", "gradient_margin"):
            report.figure(f"{name}_{kind}", found[kind], "thresholds")


def _note_float32(report: Report, counts: Sequence[HonestCount]) -> None:
    n, rejects = sum(c.n for c in counts), sum(c.false_rejects for c in counts)
    states = sum(c.document()["independent_states"] for c in counts)
    report.figure("f32_false_rejects", rejects, f"of {n} replays of {states} states")
    report.figure("f32_upper_limit", upper_limit(rejects, n), "share, one-sided 95 %")
    limit = upper_limit(min(rejects, states), states)
    report.figure("f32_upper_limit_states", limit, "share, one-sided 95 %, n = states")


def main() -> int:
    """Attack every contract and print what was seen."""
    options = parser(CLAIM)
    options.add_argument("--task", choices=[task.name for task in TASKS], action="append")
    arguments = options.parse_args()
    set_compile_cache()
    report = Report(CLAIM)
    failed = 0
    counts: list[HonestCount] = []
    for task in TASKS:
        if arguments.task and task.name not in arguments.task:
            continue
        say(f"== {task.name}")
        rounds, seeds = (1, 1) if arguments.quick else (task.rounds, task.honest_rounds)
        attacked = _carried_out(task, task.attacks, rounds)
        honest = _carried_out(task, (suite.HONEST,), seeds).honest
        assert honest is not None
        _note_attacks(report, task, attacked.lines)
        _note_honest(report, task, honest)
        failed += len(attacked.missed) + honest.false_rejects
        if task.name in FLOAT32:
            counts.append(honest)
    if counts:
        _note_float32(report, counts)
    report.close(arguments.form)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
