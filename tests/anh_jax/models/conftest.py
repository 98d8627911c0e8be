"""Strict promotion, and small models of every kind."""

from collections.abc import Iterator

import jax
import pytest

from anh_jax.experiment_choices import Convolution, LanguageModel, Mlp, VisionTransformer
from anh_jax.models.convolution import convolution
from anh_jax.models.language_model import language_model
from anh_jax.models.losses import next_token_cross_entropy, softmax_cross_entropy
from anh_jax.models.mlp import mlp
from anh_jax.models.vision_transformer import vision_transformer


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """Refuse silent promotion of ranks and dtypes."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def models():
    vit = VisionTransformer(width=16, depth=2, heads=2, mlp_width=32, dropout=0.5)
    lm = LanguageModel(
        vocabulary=16, sequence_length=6, width=16, depth=2, heads=2, mlp_width=32, dropout=0.5
    )
    return {
        "mlp": mlp(Mlp(hidden=(16, 16)), (8, 8)),
        "vision_transformer": vision_transformer(vit, (8, 8)),
        "convolution": convolution(Convolution(channels=(4, 8)), (8, 8)),
        "language_model": language_model(lm),
    }


@pytest.fixture(scope="session")
def losses():
    return {
        "mlp": softmax_cross_entropy(),
        "vision_transformer": softmax_cross_entropy(),
        "convolution": softmax_cross_entropy(),
        "language_model": next_token_cross_entropy(),
    }
