"""Small models, their sources and their programs, exported once for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anh_jax.experiment_choices import LanguageModel, Mlp
from anh_jax.experiment_optimizers import AdamW
from anh_jax.models.language_model import language_model
from anh_jax.models.losses import next_token_cross_entropy, softmax_cross_entropy
from anh_jax.models.mlp import mlp
from anh_jax.program.export import export_program
from anh_jax.program.programs import (
    ContractPrograms,
    ProgramSource,
    build_programs,
    program_sources,
)
from anh_jax.program.signature import StoredProgram
from anh_jax.training.optimizer import build_optimizer

LENGTH, VOCABULARY = 8, 64


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """Refuse silent promotion of ranks and dtypes."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@dataclass(frozen=True)
class Exported:
    """A program beside what it was exported from."""

    source: ProgramSource
    stored: StoredProgram


def export_source(name: str, source: ProgramSource) -> Exported:
    stored = export_program(
        name, source.function, source.arguments, output_specs=source.output_specs
    )
    return Exported(source, stored)


@pytest.fixture(scope="session")
def optimizer():
    return build_optimizer(AdamW(learning_rate=1e-2, weight_decay=0.01, clip_norm=1.0))


@pytest.fixture(scope="session")
def digits_fields():
    return {
        "image": jax.ShapeDtypeStruct((4, 4), jnp.float32),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }


@pytest.fixture(scope="session")
def mlp_model():
    return mlp(Mlp(hidden=(16,), classes=10), (4, 4))


@pytest.fixture(scope="session")
def mlp_programs(mlp_model, optimizer, digits_fields) -> ContractPrograms:
    return build_programs(mlp_model, softmax_cross_entropy(), optimizer, digits_fields)


@pytest.fixture(scope="session")
def lm_model():
    return language_model(
        LanguageModel(
            vocabulary=VOCABULARY,
            sequence_length=LENGTH,
            width=32,
            depth=2,
            heads=4,
            mlp_width=64,
            dropout=0.25,
        )
    )


@pytest.fixture(scope="session")
def lm_sources(lm_model, optimizer) -> dict[str, ProgramSource]:
    fields = {"tokens": jax.ShapeDtypeStruct((LENGTH + 1,), jnp.int32)}
    return program_sources(lm_model, next_token_cross_entropy(), optimizer, fields)


@pytest.fixture(scope="session")
def lm_gradient(lm_sources) -> Exported:
    return export_source("gradient", lm_sources["gradient"])


@pytest.fixture(scope="session")
def lm_init(lm_sources) -> Exported:
    return export_source("init", lm_sources["init"])


@pytest.fixture
def digits_batch():
    def batch(size: int, *, start: int = 0) -> dict[str, np.ndarray]:
        random = np.random.default_rng(5)
        images = random.normal(size=(64, 4, 4)).astype(np.float32)
        labels = random.integers(0, 10, 64).astype(np.int32)
        rows = slice(start, start + size)
        return {
            "image": images[rows],
            "label": labels[rows],
            "id": np.arange(64, dtype=np.uint32)[rows],
            "weight": np.ones(size, np.float32),
        }

    return batch


@pytest.fixture
def tokens_batch():
    def batch(size: int, *, start: int = 0) -> dict[str, np.ndarray]:
        tokens = np.random.default_rng(6).integers(0, VOCABULARY, (64, LENGTH + 1))
        rows = slice(start, start + size)
        return {
            "tokens": tokens.astype(np.int32)[rows],
            "id": np.arange(64, dtype=np.uint32)[rows],
            "weight": np.ones(size, np.float32),
        }

    return batch
