import jax
import jax.numpy as jnp
import pytest

from anh_jax.errors import ConfigError
from anh_jax.experiment_choices import (
    ImportedLoss,
    ImportedModel,
    LanguageModel,
    Mlp,
    NextTokenCrossEntropy,
    SoftmaxCrossEntropy,
    VisionTransformer,
)
from anh_jax.models.model import Model
from anh_jax.models.registry import build_loss, build_model

IMAGES = {
    "image": jax.ShapeDtypeStruct((8, 8), jnp.float32),
    "label": jax.ShapeDtypeStruct((), jnp.int32),
}
TOKENS = {"tokens": jax.ShapeDtypeStruct((9,), jnp.int32)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "users_code.py").write_text(
        """
from anh_jax.experiment_choices import Mlp
from anh_jax.models.mlp import mlp
from anh_jax.models.losses import softmax_cross_entropy

def build(fields, hidden):
    return mlp(Mlp(hidden=tuple(hidden)), fields["image"].shape)

def loss(smoothing=0.0):
    return softmax_cross_entropy(label_smoothing=smoothing)

def nothing(*arguments, **options):
    return 3

class Module:
    def __init__(self, rngs):
        self.weights = rngs.params()

def broken(fields):
    raise TypeError("raised inside")
"""
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_shipped_models_are_built_by_their_config_records():
    assert build_model(Mlp(), IMAGES).name == "mlp"
    assert build_model(VisionTransformer(), IMAGES).name == "vision_transformer"
    model = build_model(LanguageModel(sequence_length=8), TOKENS)
    assert model.parameters["ends"]["positions"].shape == (8, 64)


def test_sizes_that_do_not_fit_the_data_are_refused():
    with pytest.raises(ConfigError, match="mlp reads 'image', the data have tokens"):
        build_model(Mlp(), TOKENS)
    with pytest.raises(ConfigError, match="model.sequence_length: 16 needs examples of 17 tokens"):
        build_model(LanguageModel(sequence_length=16), TOKENS)
    with pytest.raises(ConfigError, match="patches of 3 do not tile"):
        build_model(VisionTransformer(patch_size=3), IMAGES)
    with pytest.raises(ConfigError, match="heads 5 does not divide width 64"):
        build_model(LanguageModel(sequence_length=8, heads=5), TOKENS)


@pytest.mark.usefixtures("package")
def test_models_and_losses_of_your_own_are_imported():
    config = ImportedModel(path="users_code:build", options={"hidden": [4]})
    assert isinstance(build_model(config, IMAGES), Model)
    loss = build_loss(ImportedLoss(path="users_code:loss", options={"smoothing": 0.1}))
    found = loss(jnp.zeros((1, 10)), {"label": jnp.zeros((1,), jnp.int32)})
    assert float(found.loss[0]) == pytest.approx(2.302585)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImportedModel(path="users_code:missing"), "model.import: .* no function missing"),
        (ImportedModel(path="no_such_code:build"), "model.import: no_such_code:build"),
        (ImportedModel(path="users_code:build"), "model.options: .*missing a required argument"),
        (ImportedModel(path="users_code:nothing"), "returned a int; return an .*Model"),
        (ImportedModel(path="users_code:Module"), "Module is a class; name a function .*Model"),
    ],
)
def test_imports_that_give_no_model_are_refused_by_key(config, message):
    with pytest.raises(ConfigError, match=message):
        build_model(config, IMAGES)


@pytest.mark.usefixtures("package")
def test_a_loss_that_is_no_function_is_refused_and_errors_inside_are_not_hidden():
    with pytest.raises(ConfigError, match="loss.import: .* returned a int; return a function"):
        build_loss(ImportedLoss(path="users_code:nothing"))
    with pytest.raises(TypeError, match="raised inside"):
        build_model(ImportedModel(path="users_code:broken"), IMAGES)


def test_shipped_losses_are_built_by_their_config_records():
    logits = jnp.zeros((2, 8, 4))
    found = build_loss(NextTokenCrossEntropy())(logits, {"tokens": jnp.zeros((2, 9), jnp.int32)})
    assert found.loss.shape == (2,)
    smoothed = build_loss(SoftmaxCrossEntropy(label_smoothing=0.5))
    assert smoothed(jnp.zeros((1, 4)), {"label": jnp.zeros((1,), jnp.int32)}).loss.shape == (1,)
