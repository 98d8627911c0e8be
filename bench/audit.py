"""How long does auditing one step take, over one training step? Compilation is left out.

    python bench/audit.py [--quick] [--json]

`audit_vs_step` is the audit of one step within bounds (gradient, spread, exact zeros, update and
all comparisons) over one training step; `exact_audit_vs_step` is one replay with its digests and
comparison. Times are CPU seconds of this process, for other work shares the cores.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import reporting

from anh_jax.bounds.step_check import CommittedStep
from anh_jax.digest.host import gradient_digest, tree_digest
from anh_jax.preparation import prepare
from anh_jax.redteam.bench import RedTeamBench
from anh_jax.redteam.step_numbers import numbers_of, row_numbers
from anh_jax.redteam.victims import victim
from anh_jax.training.executor import Tree
from anh_jax.training.state import State

# Large enough that the arithmetic of a step outweighs what Python does around it.
CONFIG = """
model: {name: vision_transformer, patch_size: 2, width: 64, depth: 2, heads: 4, mlp_width: 128}
data: {name: digits, holdout: {fraction: 0.2}}
loss: {name: softmax_cross_entropy}
optimizer: {name: adamw, learning_rate: 4e-3, weight_decay: 1e-4}
training: {steps: 24, batch_size: 384, seed: 0}
properties: [{name: accuracy, numerator: 1, denominator: 10, margin: 3}]
"""
_STEP = 11


class AuditedStep:
    """One honest step of a small vision transformer, ready to be taken and audited."""

    def __init__(self, folder: Path) -> None:
        config = folder / "config.yaml"
        config.write_text(CONFIG)
        self.bench = RedTeamBench(prepare(victim(config)), folder)
        self.state: State = self.bench.initial_state()
        for step in range(1, _STEP):
            self.state = self.train(step)
        self.outputs: Tree = self.bench.gradient(self.state, self.bench.piece(_STEP))
        self.after = self.bench.update(self.state, self.outputs, _STEP)
        scalars = self.bench.executor.scalars(self.outputs)
        numbers = row_numbers(numbers_of(self.outputs, scalars))
        self.committed = CommittedStep(_STEP, self.state, self.outputs, self.after, numbers)
        self.check = self.bench.step_check()

    def train(self, step: int = _STEP) -> State:
        """Take a training step and wait for it."""
        outputs = self.bench.gradient(self.state, self.bench.piece(step))
        after = self.bench.update(self.state, outputs, step)
        float(outputs["loss"])
        return after

    def replay(self) -> None:
        """Audit the step by its bits, once."""
        outputs = self.bench.gradient(self.state, self.bench.piece(_STEP))
        after = self.bench.update(self.state, outputs, _STEP)
        gradient_digest(outputs, step=_STEP, alg="blake3")
        tree_digest(after, step=_STEP, alg="blake3")

    def judge(self) -> None:
        """Audit the step within bounds."""
        found = self.check.check(self.committed, seed=7)
        assert found.outcome == "pass", found.words


def cpu_seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Return the CPU seconds of each round, the first left out: it may compile."""
    work()
    found: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return found


def main() -> None:
    """Measure and print."""
    arguments = reporting.parser(__doc__.splitlines()[0]).parse_args()
    rounds = 5 if arguments.quick else 25
    report = reporting.Report("one step audited over one step trained, after compilation")
    with tempfile.TemporaryDirectory() as folder:
        step = AuditedStep(Path(folder))
        trained = cpu_seconds(step.train, rounds)
        exact = cpu_seconds(step.replay, rounds)
        bounded = cpu_seconds(step.judge, rounds)
    base = statistics.median(trained)
    for name, values in (("audit_vs_step", bounded), ("exact_audit_vs_step", exact)):
        spread = reporting.Spread.of([value / base for value in values])
        report.figure(name, spread.median, "training steps", spread)
    report.figure("training_step", base, "s", reporting.Spread.of(trained))
    rows = [[name, f"{figure['value']:.3g}", str(figure["unit"])]
            for name, figure in report.figures.items()]  # fmt: skip
    report.table("audit of one step", ["figure", "median", "unit"], rows)
    report.close(arguments.form)


if __name__ == "__main__":
    main()
