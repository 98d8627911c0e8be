"""Measures the null of the drift check: how far honest gradient residuals lean one way.

    .venv/bin/python bench/drift_null.py [--write]

One executor trains, a second replays its audited steps on another mesh or in microbatches; for each
audit the mean pairwise cosine of every tensor is taken as `anh audit` takes it. The excess of the
largest over 5 of its own standard deviations, and twice the largest mean where all lie below them,
bound what is allowed. Calibration seeds are those below 1000; the check at the end runs on others.
`--write` freezes the result in anh_jax/audit/drift_nulls.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from anh_jax.audit.drift import (
    DEVIATIONS,
    NULLS,
    DriftAccumulator,
    LeaningTensor,
)
from anh_jax.environment import cpu_model
from anh_jax.experiment import load_experiment
from anh_jax.preparation import prepare
from anh_jax.workbench import Materials, MeshSizes, Workbench, materials_of

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CALIBRATION, TEST = range(1, 9), range(1001, 1005)
# Models and optimizers as shipped, cut to runs whose steps cold and warm can all be audited.
MODELS: dict[str, tuple[str, ...]] = {
    "digits.yaml (vision transformer, adamw)": ("digits.yaml", "training.batch_size=48"),
    "digits.yaml (mlp, adamw)": (
        "digits.yaml", "training.batch_size=48",
        "model={name: mlp, hidden: [24], classes: 10}",
    ),
    "digits.yaml (mlp, sgd)": (
        "digits.yaml", "training.batch_size=48",
        "model={name: mlp, hidden: [24], classes: 10}",
        "optimizer={name: sgd, learning_rate: 0.1}",
    ),
    "python_docs_lm.yaml (decoder, adamw)": ("python_docs_lm.yaml", "training.batch_size=8"),
}  # fmt: skip
STEPS, AUDITED = 40, (2, 5, 8, 12, 16, 20, 24, 28, 32, 36, 39, 40)
# The smallest allowance: below it a null of few audits says nothing.
_LEAST = 0.02


@dataclass(frozen=True)
class Variant:
    """How the second executor differs from one that runs whole batches on one device."""

    differs: str
    mesh: MeshSizes
    microbatches: int


VARIANTS = (
    Variant("mesh", MeshSizes(data=2), 1),
    Variant("microbatch", MeshSizes(), 2),
)


@dataclass(frozen=True)
class Seen:
    """One tensor of one audit."""

    model: str
    variant: str
    seed: int
    tensor: str
    leaning: LeaningTensor


def main() -> int:
    """Measure, print, and freeze the nulls if asked."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--write", action="store_true", help="freeze what was measured")
    asked.add_argument("--models", type=int, default=len(MODELS), help="so many models alone")
    given = asked.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    models = dict(list(MODELS.items())[: given.models])
    calibration = list(_measure(models, CALIBRATION))
    nulls = [_null(variant, calibration, list(models)) for variant in VARIANTS]
    test = list(_measure(models, TEST))
    for null in nulls:
        null["test"] = _tested(null, test)
        print(json.dumps(null, indent=1))
    if given.write:
        text = json.dumps({"version": 1, "nulls": nulls}, indent=1, sort_keys=True) + "\n"
        NULLS.write_text(text, "utf-8")
    return 1 if any(null["test"]["failed"] for null in nulls) else 0


def _measure(models: dict[str, tuple[str, ...]], seeds: range) -> Iterator[Seen]:
    for model, (config, *changes) in models.items():
        for seed in seeds:
            experiment = load_experiment(
                CONFIGS / config,
                (*changes, f"training.steps={STEPS}", f"training.seed={seed}"),
            )
            cache = Path(tempfile.gettempdir()) / "anh-drift-null"
            materials = materials_of(prepare(experiment, cache=cache))
            yield from _audits(materials, model, seed)
            print(f"{model}: seed {seed}", file=sys.stderr, flush=True)


def _audits(materials: Materials, model: str, seed: int) -> Iterator[Seen]:
    """Train once and replay the audited steps by every variant."""
    trainer = Workbench(materials, MeshSizes(), microbatch=None)
    batch = materials.contract.batch_size
    others = {
        v: Workbench(materials, v.mesh, microbatch=batch // v.microbatches if v.microbatches > 1
                     else None)
        for v in VARIANTS
    }  # fmt: skip
    sums = {variant: DriftAccumulator() for variant in VARIANTS}
    state = trainer.executor.initial_state(materials.contract.seed)
    for step in range(1, STEPS + 1):
        outputs = trainer.executor.gradient(state, trainer.batch(step).pieces)
        if step in AUDITED:
            for variant, bench in others.items():
                reference = _replayed(bench, state, step)
                sums[variant].add(step, outputs["gradient"], reference)
        scalars = trainer.executor.scalars(outputs)
        state = trainer.executor.update(jax.tree.map(jnp.copy, state), outputs, scalars, step)
    for variant, found in sums.items():
        for name, leaning in found.tensors().items():
            yield Seen(model, variant.differs, seed, name, leaning)


def _replayed(bench: Workbench, state: Any, step: int) -> Any:
    layout = jax.tree.map(lambda leaf: leaf.sharding, bench.abstract_state())
    return bench.executor.gradient(jax.device_put(state, layout), bench.batch(step).pieces)[
        "gradient"
    ]


def _null(variant: Variant, seen: list[Seen], models: list[str]) -> dict[str, Any]:
    mine = [s for s in seen if s.variant == variant.differs]
    top = max(mine, key=lambda s: s.leaning.mean)
    excess = max(s.leaning.mean - DEVIATIONS * s.leaning.deviation for s in mine)
    backend = f"{jax.default_backend()}:{jax.devices()[0].device_kind}"
    return {
        "numerics": "f32",
        "backends": [backend, backend],
        "differs": [variant.differs],
        "allowed": round(max(_LEAST, 2 * excess), 6),
        "measured": {
            "largest": {"mean": top.leaning.mean, "deviation": top.leaning.deviation,
                        "tensor": top.tensor, "model": top.model, "seed": top.seed},
            "largestExcess": excess,
            "average": sum(s.leaning.mean for s in mine) / len(mine),
            "tensors": len(mine),
            "audits": len({(s.model, s.seed) for s in mine}),
            "stepsOfAnAudit": len(AUDITED),
            "seeds": [CALIBRATION.start, CALIBRATION.stop - 1],
            "models": models,
            "variant": {"mesh": asdict(variant.mesh), "microbatches": variant.microbatches},
            "command": "python bench/drift_null.py --write",
            "jax": jax.__version__,
            "cpu": cpu_model(),
            "system": platform.system(),
            "date": datetime.date.today().isoformat(),
        },
    }  # fmt: skip


def _tested(null: dict[str, Any], seen: list[Seen]) -> dict[str, Any]:
    """Apply the frozen null to seeds that it was not made from."""
    mine = [s for s in seen if s.variant == null["differs"][0]]
    ratios = [s.leaning.mean / (null["allowed"] + DEVIATIONS * s.leaning.deviation) for s in mine]
    return {
        "seeds": [TEST.start, TEST.stop - 1],
        "audits": len({(s.model, s.seed) for s in mine}),
        "tensors": len(mine),
        "failed": sum(not ratio <= 1 for ratio in ratios),
        "largest": max(ratios),
    }


if __name__ == "__main__":
    sys.exit(main())
