"""States and batches of the small models, and the eager battery's way of making programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from anh_jax.experiment_choices import VisionTransformer
from anh_jax.models.losses import softmax_cross_entropy
from anh_jax.models.vision_transformer import vision_transformer
from anh_jax.program.load import load_program
from anh_jax.program.programs import build_programs
from anh_jax.program.signature import StoredProgram
from anh_jax.training.mesh import make_mesh
from anh_jax.training.state import gradient_part, seed_words

BATCH = 6


@dataclass(frozen=True)
class Case:
    """A stored program and arguments that fit it; `batch` is the one to refine it for."""

    stored: StoredProgram
    arguments: tuple[Any, ...]
    batch: int | None

    def compiled(self) -> Any:
        return load_program(self.stored, make_mesh())(*self.arguments)


def cases_of(stored: dict[str, StoredProgram], batch: Any, key_seed: int = 7) -> dict[str, Case]:
    """Return the five programs with arguments: each is given what the ones before it returned."""
    made = {"init": Case(stored["init"], (seed_words(key_seed),), None)}
    state = made["init"].compiled()
    seen = (gradient_part(state), batch, state["key"])
    made["gradient"] = Case(stored["gradient"], seen, BATCH)
    sums = made["gradient"].compiled()
    made["scalars"] = Case(stored["scalars"], (sums,), None)
    moving = {name: state[name] for name in ("parameters", "optimizer", "step")}
    constants = np.linspace(0.01, 0.9, 4, dtype=np.float32)
    scalars = made["scalars"].compiled()
    changed = (moving, sums["gradient"], scalars, constants)
    made["update"] = Case(stored["update"], changed, None)
    made["evaluate"] = Case(stored["evaluate"], (state["parameters"], batch), BATCH)
    return made


@pytest.fixture(scope="session")
def mlp_cases(mlp_programs) -> dict[str, Case]:
    random = np.random.default_rng(5)
    return cases_of(dict(mlp_programs.stored), digits(random, (4, 4)))


@pytest.fixture(scope="session")
def vit_cases(optimizer) -> dict[str, Case]:
    config = VisionTransformer(patch_size=4, width=16, depth=2, heads=2, mlp_width=32, classes=10)
    fields = {
        "image": jax.ShapeDtypeStruct((8, 8), np.float32),
        "label": jax.ShapeDtypeStruct((), np.int32),
    }
    model = vision_transformer(config, (8, 8))
    programs = build_programs(model, softmax_cross_entropy(), optimizer, fields)
    return cases_of(dict(programs.stored), digits(np.random.default_rng(5), (8, 8)))


@pytest.fixture(scope="session")
def lm_cases(lm_gradient, lm_sources) -> dict[str, Case]:
    from tests.anh_jax.program.conftest import export_source

    stored = {
        name: export_source(name, lm_sources[name]).stored
        for name in ("init", "scalars", "update", "evaluate")
    }
    tokens = np.random.default_rng(6).integers(0, 64, (BATCH, 9)).astype(np.int32)
    return cases_of({**stored, "gradient": lm_gradient.stored}, identified({"tokens": tokens}))


def digits(random: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    images = random.normal(size=(BATCH, *shape)).astype(np.float32)
    labels = random.integers(0, 10, BATCH).astype(np.int32)
    return identified({"image": images, "label": labels})


def identified(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        **fields,
        "id": np.arange(BATCH, dtype=np.uint32),
        "weight": np.linspace(0.5, 1.5, BATCH, dtype=np.float32),
    }


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Case]]:
    return lambda model: request.getfixturevalue(f"{model}_cases")
